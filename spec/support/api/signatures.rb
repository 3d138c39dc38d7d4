# frozen_string_literal: true

require "rbs"
require_relative "reflection"

# The signatures in sig/, with all their types resolved.
class Signatures
  # @raise [RBS::BaseError] if a file cannot be parsed, or names an unknown type
  def initialize(folder)
    loader = RBS::EnvironmentLoader.new
    loader.add(path: Pathname(folder))
    @environment = RBS::Environment.from_loader(loader).resolve_type_names
    @builder = RBS::DefinitionBuilder.new(env: @environment)
  end

  # @return [Array<String>] the names of our classes and modules
  def names = @environment.class_decls.keys.map { |name| name.to_s.delete_prefix("::") }.grep(/\AOnlineManager\b/)

  # @return [Hash{String => Object}] what the class or module itself defines: "instance" and "singleton" methods with
  #   their parameters as {Reflection.parameter} writes them, and the names of its "constants"
  def of(name)
    instance = methods_of(@builder.build_instance(type_name(name)))
    singleton = methods_of(@builder.build_singleton(type_name(name)))
    # RBS lists `initialize` as `new` too.
    singleton.delete("new") if instance.key?("initialize")
    constants = @environment.constant_decls.keys.map(&:to_s).grep(/\A::#{name}::\w+\z/)
    { "instance" => instance, "singleton" => singleton, "constants" => constants.map { |path| path[/\w+\z/] }.sort }
  end

  # @return [String, nil] the declared superclass
  def superclass(name)
    declared = @environment.class_decls.fetch(type_name(name)).primary.decl
    declared.super_class&.name&.to_s&.delete_prefix("::") if declared.respond_to?(:super_class)
  end

  private

  def type_name(name)
    *namespace, last = name.split("::").map(&:to_sym)
    RBS::TypeName.new(name: last, namespace: RBS::Namespace.new(path: namespace, absolute: true))
  end

  def methods_of(definition)
    own = definition.methods.select { |_, method| method.implemented_in == definition.type_name }
    own.to_h do |name, method|
      forms = method.method_types.map { |type| parameters(type) }.uniq
      raise "#{definition.type_name}: the forms of #{name} differ" unless forms.one?

      [name.to_s, forms.first]
    end
  end

  def parameters(type)
    function = type.type
    [*positional(function).flat_map { |kind, all| all.map { |one| Reflection.parameter(kind, one.name) } },
     *(Reflection.parameter(:block, nil) if type.block), *keywords(function).sort]
  end

  def positional(function)
    [[:req, function.required_positionals], [:opt, function.optional_positionals],
     [:rest, [*function.rest_positionals]], [:req, function.trailing_positionals]]
  end

  def keywords(function)
    raise "a keyword has a name, or is not needed" if function.rest_keywords

    function.required_keywords.keys.map { |name| Reflection.parameter(:keyreq, name) } +
      function.optional_keywords.keys.map { |name| Reflection.parameter(:key, name) }
  end
end
