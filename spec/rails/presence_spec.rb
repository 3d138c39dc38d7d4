# frozen_string_literal: true

require "json"

# In child processes: ActiveRecord is not in our bundle.
RSpec.describe "OnlineManager::Presence" do
  prologue = <<~RUBY
    require "active_record"
    require "json"
    require "online_manager"
    require "online_manager/rails/presence"

    ActiveRecord::Base.establish_connection("sqlite3::memory:")
    ActiveRecord::Schema.verbose = false
    ActiveRecord::Schema.define do
      create_table(:rooms)
      create_table(:users) do |t|
        t.string :name
        t.boolean :online, null: false, default: false
        t.belongs_to :room
      end
      create_table(:guests, primary_key: :token, id: :string)
    end

    class User < ActiveRecord::Base
      include OnlineManager::Presence
      belongs_to :room, optional: true
    end

    class Room < ActiveRecord::Base
      has_many :users
    end

    class Guest < ActiveRecord::Base
      include OnlineManager::Presence
    end

    class OnlineConfig
      def timeout = 60
      def setup; end
      def online(user_id); end
      def offline(user_id); end
    end

    # The number of SELECTs in the block.
    def queries(&)
      count = 0
      counter = ->(*, payload) { count += 1 unless payload[:name] == "SCHEMA" }
      ActiveSupport::Notifications.subscribed(counter, "sql.active_record", &)
      count
    end

    def answer(**answers) = puts(answers.to_json)

    def message
      yield
      "nothing was raised"
    rescue StandardError => e
      "\#{e.class}: \#{e.message}"
    end
  RUBY

  # @return [Hash{Symbol => Object}] the script's answers
  define_method(:answers) do |script|
    process = ruby(prologue + script)
    expect(process.stderr).to eq ""
    JSON.parse(process.stdout, symbolize_names: true)
  end

  it "queries the column once for all records and not at all for a single record" do
    expect(answers(<<~RUBY)).to eq(names: %w[ann eve], online: [true, true], queries: 1, counts: [2, 1], bob: false)
      User.create!([{ name: "ann", online: true }, { name: "bob" }, { name: "eve", online: true }])
      room = Room.create!(users: [User.first, User.second])
      users = nil
      online = nil
      queries = queries { online = (users = User.online.order(:name).to_a).map(&:online?) }
      answer(names: users.map(&:name), online:, queries:, counts: [User.online.count, room.users.online.count],
             bob: User.find_by(name: "bob").online?)
    RUBY
  end

  it "asks the manager once for all records, on relations and associations too" do
    expect(answers(<<~RUBY)).to eq(names: %w[bob eve], queries: 1, in_room: %w[bob], scoped: %w[eve], nobody: [])
      User.create!(%w[ann bob eve].map { |name| { name: } })
      room = Room.create!(users: [User.first, User.second])
      OnlineManager.setup(OnlineConfig.new)
      nobody = User.online_now.to_a
      OnlineManager.current.seen_all(User.where(name: %w[bob eve]).ids)

      users = nil
      queries = queries { users = User.online_now.order(:name).to_a }
      answer(names: users.map(&:name), queries:, in_room: room.users.online_now.map(&:name),
             scoped: User.where.not(name: "bob").online_now.map(&:name), nobody:)
    RUBY
  end

  it "uses the manager of the namespace and any primary key" do
    expect(answers(<<~RUBY)).to eq(users: [1], guests: %w[a-1])
      User.create!(id: 1)
      Guest.create!([{ token: "a-1" }, { token: "b-2" }])
      OnlineManager.setup(OnlineConfig.new)
      OnlineManager.setup(OnlineConfig.new, namespace: :guests)
      OnlineManager.current.seen(1)
      OnlineManager.current(:guests).seen("a-1")
      answer(users: User.online_now.ids, guests: Guest.online_now(:guests).ids)
    RUBY
  end

  it "raises an error that says what is missing" do
    column = "OnlineManager::Error: the table guests has no column `online`: " \
             "run `rails generate online_manager:install Guest` and migrate"
    expect(answers(<<~RUBY)).to match(
      class Visit < ActiveRecord::Base
        self.table_name = "users"
        self.primary_key = nil
        include OnlineManager::Presence
      end

      manager = message { User.online_now }
      namespace = message { User.online_now("guests") }
      OnlineManager.setup(OnlineConfig.new)
      answer(manager:, namespace:, scope: message { Guest.online }, record: message { Guest.new.online? },
             key: message { Visit.online_now }, unselected: message { User.create! && User.select(:id).first.online? },
             module: message { Comparable.include(OnlineManager::Presence) },
             plain: message { Struct.new(:id).include(OnlineManager::Presence) })
    RUBY
      manager: "OnlineManager::Error: no manager runs: call OnlineManager.setup in an initializer",
      namespace: "OnlineManager::Error: no manager runs in the namespace \"guests\": " \
                 "call OnlineManager.setup in an initializer",
      scope: column,
      record: column,
      key: "OnlineManager::Error: Visit has no primary key to look user ids up by: set `self.primary_key`",
      unselected: /\AActiveModel::MissingAttributeError: /,
      module: "TypeError: OnlineManager::Presence must be included in an ActiveRecord model, got Comparable",
      plain: /\ATypeError: OnlineManager::Presence must be included in an ActiveRecord model, got #<Class:\w+>\z/
    )
  end
end
