# frozen_string_literal: true

# The methods and constants that a class or module of ours really has, in the form of {Signatures}. Also loaded into a
# child process with Rails, so it requires nothing.
module Reflection
  LIB = File.expand_path("../../../lib", __dir__)

  module_function

  # @param mod [Module]
  # @return [Hash{String => Object}] see {Signatures#of}
  def of(mod)
    instance = mod.public_instance_methods(false).map { |name| mod.instance_method(name) }
    instance << mod.instance_method(:initialize) if mod.private_instance_methods(false).include?(:initialize)
    constants = mod.constants(false).reject { |name| mod.autoload?(name) || mod.const_get(name).is_a?(Module) }
    { "instance" => describe(instance),
      "singleton" => describe(mod.singleton_methods(false).map { |name| mod.singleton_method(name) }),
      "constants" => constants.map(&:to_s).sort }
  end

  # @param methods [Array<Method, UnboundMethod>] methods that other libraries defined in our classes are left out
  # @return [Hash{String => Array<String>}] by name, {#parameter} of each parameter
  def describe(methods)
    ours = methods.select { |method| method.source_location.nil? || method.source_location.first.start_with?(LIB) }
    ours.to_h { |method| [method.name.to_s, parameters(method)] }
  end

  def parameters(method)
    all = method.parameters.flat_map do |kind, name|
      # The keyword options, which the code checks itself.
      next OnlineManager::Options::NAMES.map { |option| parameter(:key, option) } if [kind, name] == %i[keyrest options]

      parameter(kind, name)
    end
    # Keywords have no order.
    all.partition { |parameter| !parameter.end_with?(":") }.then { |others, keywords| others + keywords.sort }
  end

  # @return [String] the parameter as RBS writes it; parameters of Rust methods have no names
  def parameter(kind, name)
    name ||= "_"
    { req: name, opt: "?#{name}", rest: "*#{name}", keyreq: "#{name}:", key: "?#{name}:", keyrest: "**#{name}",
      block: "&" }.fetch(kind).to_s
  end
end
