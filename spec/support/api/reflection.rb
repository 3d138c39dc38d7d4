# frozen_string_literal: true

# What a class or a module of ours really has, in the form in which {Signatures} has it. Also loaded into a child
# process with Rails, so it needs nothing but Ruby.
module Reflection
  LIB = File.expand_path("../../../lib", __dir__)

  module_function

  # @param mod [Module]
  # @return [Hash{String => Object}] see {Signatures#of}
  def of(mod)
    instance = mod.public_instance_methods(false).map { |name| mod.instance_method(name) }
    instance << mod.instance_method(:initialize) if mod.private_instance_methods(false).include?(:initialize)
    constants = mod.constants(false).reject { |name| mod.autoload?(name) || mod.const_get(name).is_a?(Module) }
    { "instance" => describe(instance, mod),
      "singleton" => describe(mod.singleton_methods(false).map { |name| mod.singleton_method(name) }, mod),
      "constants" => constants.map(&:to_s).sort }
  end

  # @param methods [Array<Method, UnboundMethod>] of which those that a framework makes in our classes are left out
  # @return [Hash{String => Array<String>}] by name, what {#parameter} says of each parameter
  def describe(methods, mod)
    ours = methods.select { |method| method.source_location.nil? || method.source_location.first.start_with?(LIB) }
    ours.to_h { |method| [method.name.to_s, parameters(method, mod)] }
  end

  def parameters(method, mod)
    all = method.parameters.flat_map do |kind, name|
      # The options, which are checked by hand.
      next mod.const_get(:OPTIONS).map { |option| parameter(:key, option) } if [kind, name] == %i[keyrest options]

      parameter(kind, name)
    end
    # Keywords have no order.
    all.partition { |parameter| !parameter.end_with?(":") }.then { |others, keywords| others + keywords.sort }
  end

  # @return [String] as RBS writes it; what is Rust has no names
  def parameter(kind, name)
    name ||= "_"
    { req: name, opt: "?#{name}", rest: "*#{name}", keyreq: "#{name}:", key: "?#{name}:", keyrest: "**#{name}",
      block: "&" }.fetch(kind).to_s
  end
end
