# frozen_string_literal: true

require "stringio"
require "yard"

# The documentation of lib/ as YARD reads it with .yardopts: without objects that are `@private`.
class Documentation
  # @return [String] YARD's warnings
  attr_reader :complaints

  # @param folder [String]
  def initialize(folder)
    log = YARD::Logger.instance
    terminal = log.io
    log.io = complaints = StringIO.new
    YARD::Registry.clear
    YARD.parse("#{folder}/**/*.rb")
    @objects = YARD::Registry.all.select { |object| shown?(object) }
    @complaints = complaints.string
  ensure
    log.io = terminal
  end

  # @return [Array<String>] the names of classes and modules
  def names = @objects.grep(YARD::CodeObjects::NamespaceObject).map(&:path)

  # @return [Array<YARD::CodeObjects::MethodObject>]
  def methods = @objects.grep(YARD::CodeObjects::MethodObject)

  # @return [Array<String>] the names of the objects without a text
  def undocumented = @objects.select { |object| object.docstring.blank? }.map(&:path)

  private

  def shown?(object)
    object.visibility == :public && [object, object.namespace].none? { |one| one.has_tag?(:private) }
  end
end
