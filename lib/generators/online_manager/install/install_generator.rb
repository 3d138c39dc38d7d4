# frozen_string_literal: true

require "rails/generators/active_record"

class OnlineManager
  # The generators. Only `rails generate` loads them.
  module Generators
    # `rails generate online_manager:install User`, see USAGE. Each public method is a step; Thor runs them in this
    # order. Running it again changes nothing; `rails destroy` removes what it has written.
    class InstallGenerator < ::ActiveRecord::Generators::Base
      INCLUDE = "include OnlineManager::Presence"
      PIN = %(pin "online_manager"\n)
      REQUIRE = "//= require online_manager\n"
      IGNORE = "\n# Who is online.\n/storage/presence_*.sqlite3*\n"
      CONNECTION = "app/channels/application_cable/connection.rb"
      IMPORT_MAP = "config/importmap.rb"
      SCRIPT = "app/assets/javascripts/application.js"
      private_constant :INCLUDE, :PIN, :REQUIRE, :IGNORE, :CONNECTION, :IMPORT_MAP, :SCRIPT

      source_root File.expand_path("templates", __dir__)

      # Makes the command exit with a status other than 0 when a step raises Thor::Error.
      #
      # @return [true]
      def self.exit_on_failure? = true

      # Refuses a model that cannot be one of users.
      #
      # @return [void]
      # @raise [Thor::Error] if there is no such model, or its primary key is not one column
      def check_model
        return if behavior == :revoke

        unless model
          raise Thor::Error, "There is no ActiveRecord model #{class_name}. " \
                             "Run `rails generate model #{class_name}` first."
        end
        return if model_key.is_a?(String)

        raise Thor::Error, "#{class_name} has the primary key #{model_key.inspect}. " \
                           "A user id needs one of a single column: set `self.primary_key`."
      end

      # Creates the folder of the store's file, and has git ignore the file. First, since the application cannot boot
      # with the initializer and without the folder.
      #
      # @return [void]
      def create_storage_folder
        create_file "storage/.keep" unless behavior == :revoke || exists?("storage/.keep")
        add_to_file(".gitignore", IGNORE, unless_match: %r{^/?storage(?:/\**|/presence_.*)?$})
      end

      # Writes the config, which updates the columns.
      #
      # @return [void]
      def create_config
        template "online_config.rb", "app/presence/online_config.rb"
      end

      # Writes the initializer, which sets the config up.
      #
      # @return [void]
      def create_initializer
        template "initializer.rb", "config/initializers/online_manager.rb"
      end

      # Writes the migration that adds the columns. Keeps one of that name: it has been edited, or comes from an older
      # Rails.
      #
      # @return [void]
      def create_migration_file
        name = "add_presence_to_#{unprefixed_table_name.underscore.gsub(/\W/, "_")}.rb"
        migration_template "migration.rb", File.join(db_migrate_path, name), skip: true
      end

      # Includes OnlineManager::Presence in the model.
      #
      # @return [void]
      def include_presence_in_model
        # A class that ends on the line that it begins on has no place for the `include`.
        head = read(model_file)[/^ *class (?:::)?(?:\w+::)*#{class_name.demodulize}\b[^;\n]*\n/]
        return say("Add `#{INCLUDE}` to #{class_name}.", :yellow) unless head || behavior == :revoke

        add_to_file(model_file, "#{head.to_s[/\A */]}  #{INCLUDE}\n", unless_match: /^\s*#{INCLUDE}\b/o, after: head)
      end

      # Adds online_manager.js to the import map, or to application.js of Sprockets, whichever exists.
      #
      # @return [void]
      def add_javascript
        add_to_file(IMPORT_MAP, PIN, unless_match: /^\s*pin\s*\(?["']online_manager["']/)
        return unless sprockets?

        # Before the other directives: it depends on none of them, and has to come before a require_tree.
        add_to_file(SCRIPT, REQUIRE, unless_match: %r{^//= require ["']?online_manager\b},
                                     after: %r{\A(?:(?!//= require).*\n)*})
      end

      # Prints what to add to the connection, which only the application can name the user of. A new application of
      # Rails 8 has no such file.
      #
      # @return [void]
      def show_next_steps
        return if behavior == :revoke || read(CONNECTION).include?("OnlineManager::Connection")

        say ERB.new(File.read(find_in_source_paths("next_steps.tt")), trim_mode: "-").result(binding)
      end

      private

      # @return [Class, nil] nil if there is no such model; `rails destroy` may come after the model's own
      def model
        @model ||= class_name.safe_constantize.then do |found|
          found if found.is_a?(Class) && found < ::ActiveRecord::Base && !found.abstract_class?
        end
      end

      def table_name = model&.table_name || super

      # The table's name without the application's prefix and suffix, which a migration adds by itself.
      def unprefixed_table_name
        base = ::ActiveRecord::Base
        table_name.delete_prefix(base.table_name_prefix).delete_suffix(base.table_name_suffix)
      end

      # @return [String, Array, nil] the model's primary key; "id" if there is no database yet to ask
      def model_key
        model ? model.primary_key : "id"
      rescue ::ActiveRecord::ActiveRecordError
        "id"
      end

      # The migrations' folder of the model's database, if the application has several databases.
      def db_migrate_path
        Array(model&.connection_db_config&.migrations_paths).first || super
      rescue ::ActiveRecord::ActiveRecordError
        super
      end

      def model_file
        usual = "app/models/#{class_name.underscore}.rb"
        return usual if exists?(usual) || !model

        file, = Object.const_source_location(class_name)
        file && relative_to_original_destination_root(file)
      end

      # Whether pages can get the script from the gem.
      def script? = exists?(IMPORT_MAP) || sprockets?

      def sprockets? = read(SCRIPT).match?(%r{^//= require})

      def exists?(path) = File.exist?(File.expand_path(path, destination_root))

      def read(path) = path && exists?(path) ? File.read(File.expand_path(path, destination_root)) : ""

      # Adds text to a file, if the file exists and does not match; `rails destroy` removes the text.
      #
      # @param unless_match [Regexp] matches the text, also in other words
      # @param position [Hash] Thor's `after:`; without it the text goes to the end
      def add_to_file(path, addition, unless_match:, **position)
        text = read(path)
        return if text.empty?

        if behavior == :revoke
          gsub_file(path, addition, "", force: true) if text.include?(addition)
        elsif text.match?(unless_match)
          say_status(:identical, path, :blue)
        else
          addition = "\n#{addition}" unless position.any? || text.end_with?("\n")
          insert_into_file(path, addition, position)
        end
      end
    end
  end
end
