# frozen_string_literal: true

require "rbconfig"

class OnlineManager
  # Finds and loads the compiled extension for the running Ruby. A precompiled gem has one in a folder for each version
  # of Ruby; a source gem has the one that was compiled at installation.
  #
  # @private
  module Extension
    FILE = "online_manager.#{RbConfig::CONFIG["DLEXT"]}".freeze
    private_constant :FILE

    class << self
      # @param folder [String] the folder to search
      # @param ruby [String] a version of Ruby, such as "3.3.1"
      # @return [String] the extension's path
      # @raise [LoadError] if there is no extension for that Ruby
      def path(folder = __dir__, ruby: RUBY_VERSION)
        version = ruby[/\A\d+\.\d+/]
        ["#{folder}/#{version}/#{FILE}", "#{folder}/#{FILE}"].find { |path| File.file?(path) } or
          raise LoadError, "online_manager has no compiled extension for Ruby #{version}, #{available(folder)}"
      end

      private

      def available(folder)
        versions = Dir["*/#{FILE}", base: folder].map { |path| File.dirname(path) }
        return "nor for any other: run `rake compile` in a checkout, or install the gem again" if versions.empty?

        *others, last = versions.sort_by { |version| version.split(".").map(&:to_i) }
        list = [others.join(", "), last].reject(&:empty?).join(" and ")
        # Ruby prefers this gem to the one of the sources for as long as it is installed.
        "only for #{list}: to compile one, run `gem uninstall online_manager --all --executables` and then " \
          "`gem install online_manager --platform ruby`, or set `force_ruby_platform: true` beside the gem's name in " \
          "a Gemfile (with Bundler 2.3.18 or newer)"
      end
    end
  end
end

require OnlineManager::Extension.path
