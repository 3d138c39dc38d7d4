# frozen_string_literal: true

require "net/http"
require_relative "../support/rails/fresh_app"

# Each Rails command is a process, and takes a second. The specs read the database with the program `sqlite3`.
RSpec.describe "rails generate online_manager:install", limit: 120 do
  before(:context) { TimeLimit.enforce(120) { @fresh = FreshApp.new } }
  after(:context) { @fresh&.remove }

  context "with User in a fresh application" do
    before(:context) do
      TimeLimit.enforce(120) do
        @app = FreshApp.new(@fresh)
        @printed = @app.rails("generate", "online_manager:install", "User").stdout
        @app.rails("db:migrate", "zeitwerk:check")
      end
    end

    after(:context) { @app.remove }

    it "writes the first row at the first heartbeat, without any edit" do
      @app.write("config/routes.rb", <<~RUBY)
        Rails.application.routes.draw do
          get "users/:id/:what", to: lambda { |env|
            user_id, what = env["action_dispatch.request.path_parameters"].values_at(:id, :what)
            [200, {}, [OnlineManager.current.public_send(what, user_id.to_i).to_s]]
          }
        end
      RUBY
      id, = @app.sql("INSERT INTO users (name, created_at, updated_at) VALUES ('ann', 'now', 'now') RETURNING id")
      row = -> { @app.sql(<<~SQL) }
        SELECT online, abs(julianday('now') - julianday(last_online_at)) * 86400 < 60, presence_version > 0
        FROM users WHERE id = #{id}
      SQL

      expect(row.call).to eq ["0||0"]
      server = @app.serve do |url|
        expect(Net::HTTP.get(URI("#{url}/users/#{id}/seen"))).to eq "true"
        eventually(limit: 30) { expect(row.call).to eq ["1|1|1"] }
        expect(Net::HTTP.get(URI("#{url}/users/#{id}/leave"))).to eq "true"
        eventually(limit: 30) { expect(row.call).to eq ["0|1|1"] }
      end
      expect(server.stderr).to eq ""
    end

    it "runs one UPDATE for each call and changes no row whose version is not below the call's" do
      process = @app.rails("runner", <<~RUBY)
        ann, bob, eve = User.create!(%w[ann bob eve].map { |name| { name: "\#{name} of the batch" } }).map(&:id)
        config = OnlineConfig.new
        call = lambda do |method, *args, **options|
          count = 0
          counter = ->(*, payload) { count += 1 if payload[:sql].start_with?("UPDATE") }
          ActiveSupport::Notifications.subscribed(counter, "sql.active_record") do
            config.public_send(method, *args, **options)
          end
          users = User.where(id: [ann, bob, eve]).order(:id)
          puts "\#{method}: \#{count}, " + users.map { |user| "\#{user.presence_version} \#{user.online?}" }.join(", ")
        end

        call.call(:online_all, [eve, ann, bob], version: [30, 10, 2**53 + 1])
        puts "last_version: \#{config.last_version}"
        call.call(:offline_all, [ann, bob, eve, 0], version: [11, 20, 29, 99])
        call.call(:offline, eve, version: 30)
        call.call(:offline, eve, version: 31)
        call.call(:online, ann, version: 12)
        call.call(:online, 0, version: 12)
      RUBY
      large = (2**53) + 1

      expect(process.lines).to eq [
        "online_all: 1, 10 true, #{large} true, 30 true",
        "last_version: #{large}",
        "offline_all: 1, 11 false, #{large} true, 30 true",
        "offline: 1, 11 false, #{large} true, 30 true",
        "offline: 1, 11 false, #{large} true, 31 false",
        "online: 1, 12 true, #{large} true, 31 false",
        "online: 1, 12 true, #{large} true, 31 false"
      ]
      expect(@app.sql("SELECT name, online, presence_version FROM users WHERE name LIKE '%batch' ORDER BY id")).to eq [
        "ann of the batch|1|12", "bob of the batch|1|#{large}", "eve of the batch|0|31"
      ]
    end

    it "creates the columns and an index" do
      columns = @app.sql(<<~SQL)
        SELECT name, lower(type), "notnull", dflt_value FROM pragma_table_info('users')
        WHERE name LIKE '%online%' OR name LIKE 'presence%'
      SQL
      # Rails 7 adds a precision to times. Rails 8.1 writes FALSE, which is 0 in SQLite.
      expect(columns.map { |column| column.sub("(6)", "").sub(/\|FALSE\z/, "|0") })
        .to eq ["online|boolean|1|0", "last_online_at|datetime|0|", "presence_version|bigint|1|0"]
      expect(@app.sql("SELECT name FROM pragma_index_list('users')")).to eq ["index_users_on_online"]
    end

    connection = "app/channels/application_cable/connection.rb"

    it "prints what to add to the connection and does not edit it" do
      expect(@printed).to include "include OnlineManager::Connection\n", "presence_of { current_user.id }\n", connection
      expect(@app.read(connection)).to eq @fresh.read(connection)
    end

    it "prints that also where there is no such file, as in a new application of Rails 8, and not once it is done" do
      with_fresh(@app) do |app|
        app.remove_folder("app/channels")
        app.write("config/importmap.rb", "pin \"application\"\n")
        said = app.rails("generate", "online_manager:install", "User").stdout
        expect(said).to include "include OnlineManager::Connection\n", "create the file if it is missing",
                                "import \"online_manager\" // where it is pinned\n"

        # What it says to write, word by word.
        code = said[/^    module ApplicationCable\n.*?^    end\n/m].gsub(/^ {4}/, "")
        app.write(connection, code)
        app.rails("zeitwerk:check")
        app.rails("runner", "ApplicationCable::Connection.instance_method(:connect)")
        expect(app.rails("generate", "online_manager:install", "User").stdout).not_to include "What is left to do"
      end
    end

    it "prints the model's name, and how a bundler gets the script where there is no import map and no Sprockets" do
      with_fresh do |app|
        app.rails("generate", "model", "Admin::Account")
        app.remove_folder("app/assets")
        said = app.rails("generate", "online_manager:install", "Admin::Account").stdout
        expect(said).to include "presence_of { current_account.id }\n", "Admin::Account.find_by(",
                                "import \"./online_manager\"\n"
        expect(said).not_to include "User"

        command = said[/^    cp .*$/].strip.sub(/\$\(bundle show \w+\)/, RubyProcess::ROOT)
        FileUtils.mkdir_p(File.join(app.folder, "app/javascript"))
        Dir.chdir(app.folder) { system(command, exception: true) }
        expect(app.read("app/javascript/online_manager.js")).to include "globalThis.OnlineManager"
      end
    end

    it "changes nothing when it is run again, or where the code exists in another form" do
      with_fresh(@app) do |app|
        app.write(".gitignore", "storage/\n")
        app.write("config/importmap.rb", "pin 'online_manager', preload: true\n")
        app.write("app/assets/javascripts/application.js", "//= require 'online_manager'\n")
        app.write("app/models/user.rb", "class User < ApplicationRecord\n    include OnlineManager::Presence\nend\n")
        migration = app.files.keys.grep(/_add_presence_to_users/).first
        app.write(migration, "# From an older Rails.\n#{app.read(migration)}")
        before = app.files
        app.rails("generate", "online_manager:install", "User")

        expect(app.files).to eq before
      end
    end
  end

  # Yields an application that the example may change.
  define_method(:with_fresh) do |source = @fresh, &block|
    app = FreshApp.new(source)
    block.call(app)
  ensure
    app&.remove
  end

  it "adds lines to existing files, and `rails destroy` removes them" do
    with_fresh do |app|
      app.write(".gitignore", "/log/*") # without a newline
      app.write("config/importmap.rb", "pin \"application\"\n")
      app.write("app/assets/javascripts/application.js", "// Ours.\n//\n//= require jquery\n//= require_tree .\n")
      app.write("app/models/user.rb", <<~RUBY)
        # A User.
        class User < ApplicationRecord # with a name
          class Error < StandardError; end
        end
      RUBY
      app.write("config/initializers/prefix.rb", "ActiveRecord::Base.table_name_prefix = \"app_\"\n")

      before = app.files
      app.rails("generate", "online_manager:install", "User")
      after = app.files
      migration = after.keys.grep(%r{\Adb/migrate/\d+_add_presence_to_users\.rb\z}).first

      # Rails 7.2 keeps its database there, and has created the folder.
      keep = { "storage/.keep" => "" }.reject { |path, _| before.key?(path) }

      expect(after.reject { |path, text| before[path] == text }).to match(
        ".gitignore" => "/log/*\n\n# Who is online.\n/storage/presence_*.sqlite3*\n",
        "config/importmap.rb" => "pin \"application\"\npin \"online_manager\"\n",
        "app/assets/javascripts/application.js" =>
          "// Ours.\n//\n//= require online_manager\n//= require jquery\n//= require_tree .\n",
        "app/models/user.rb" => <<~RUBY,
          # A User.
          class User < ApplicationRecord # with a name
            include OnlineManager::Presence
            class Error < StandardError; end
          end
        RUBY
        "app/presence/online_config.rb" => /^class OnlineConfig$/,
        "config/initializers/online_manager.rb" => /^OnlineManager\.setup\("OnlineConfig", /,
        migration => /^class AddPresenceToUsers .*^    add_index :users, :online$/m, # Rails adds the prefix
        **keep
      )

      app.rails("destroy", "online_manager:install", "User")
      expect(app.files).to eq before.merge(".gitignore" => "/log/*\n", "storage/.keep" => "")
    end
  end

  it "supports a model with a namespace, and one with its own table, primary key and file" do
    with_fresh do |app|
      app.write("app/models/admin.rb", "module Admin\n  def self.table_name_prefix = \"admin_\"\nend\n")
      app.write("app/models/admin/user.rb", "module Admin\n  class User < ApplicationRecord\n  end\nend\n")
      app.write("app/visitors/guest.rb", <<~RUBY)
        class Guest < ApplicationRecord
          self.table_name = "legacyGuests"
          default_scope { order(:name).where(hidden: false) }
        end
      RUBY
      app.write("db/migrate/20200101000000_create_others.rb", <<~RUBY)
        class CreateOthers < ActiveRecord::Migration[6.1]
          def change
            create_table(:admin_users)
            create_table(:legacyGuests, primary_key: :token, id: :string, limit: 36) do |t|
              t.string :name
              t.boolean :hidden, null: false, default: false
            end
          end
        end
      RUBY
      app.rails("db:migrate")
      app.rails("generate", "online_manager:install", "admin/user")
      app.write("app/presence/admin_config.rb",
                app.read("app/presence/online_config.rb").sub("class Online", "class Admin"))
      app.rails("generate", "online_manager:install", "Guest", "--force")
      app.rails("db:migrate")
      app.rails("runner", <<~RUBY)
        tokens = %w[7d8c5a7e-0b4c-4b0e-9d3c-1f6a5a0c0b01 7d8c5a7e-0b4c-4b0e-9d3c-1f6a5a0c0b02 what's?]
        tokens.each { |token| Guest.create!(token:, name: "x", hidden: token.end_with?("2")) }
        OnlineConfig.new.online_all(tokens, version: [2, 3, 4])
        OnlineConfig.new.offline(tokens.first, version: 5)
        Admin::User.create!
        AdminConfig.new.online(Admin::User.first.id, version: 6)
        raise "unknown scope" unless Guest.online.size == 1 && Admin::User.online.size == 1
      RUBY

      expect(app.read("app/models/admin/user.rb").lines[1..2].join).to eq <<-RUBY
  class User < ApplicationRecord
    include OnlineManager::Presence
      RUBY
      expect(app.sql("SELECT online, presence_version FROM admin_users")).to eq ["1|6"]
      expect(app.sql("SELECT token, online, presence_version FROM legacyGuests ORDER BY 3")).to eq [
        "7d8c5a7e-0b4c-4b0e-9d3c-1f6a5a0c0b02|1|3", "what's?|1|4", "7d8c5a7e-0b4c-4b0e-9d3c-1f6a5a0c0b01|0|5"
      ]
    end
  end

  it "reports an unknown model and does nothing" do
    with_fresh do |app|
      before = app.files
      %w[Nobody ApplicationRecord].each do |name|
        process = app.try("generate", "online_manager:install", name)
        expect(process.stderr)
          .to eq "There is no ActiveRecord model #{name}. Run `rails generate model #{name}` first.\n"
        expect(process).not_to be_success
      end
      expect(app.files).to eq before
    end
  end

  it "prints what to add to a model that it cannot edit" do
    with_fresh do |app|
      app.write("app/models/user.rb", "class User < ApplicationRecord; end\n")
      printed = app.rails("generate", "online_manager:install", "User").stdout

      expect(printed).to include "Add `include OnlineManager::Presence` to User.\n"
      expect(app.read("app/models/user.rb")).to eq "class User < ApplicationRecord; end\n"
    end
  end
end
