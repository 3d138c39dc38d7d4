# frozen_string_literal: true

require "tmpdir"

# Standard error and logs are kept and read by many people, so they must not show who was online when. These processes
# provoke every message of the gem, for users whose ids are distinct from all other text.
RSpec.describe "Ids of users" do
  secret_id = /secret[-_]id|4242424242/

  # Callbacks that raise, each in its own way. `manager.stats[:errors]` counts them.
  prelude = <<~'RUBY'
    require "online_manager"

    IDS = ["secret-id", :secret_id, 4242424242].freeze

    class Config
      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id) = nil
      def offline(user_id) = raise("no database")
    end

    class Together < Config
      def offline_all(user_ids) = raise("no database")
    end

    class Handler < Config
      def on_error(exception, user_id) = raise("no tracker")
    end

    def await = (sleep 0.01 until yield)

    # Lets all users come online and go offline, with errors.
    def play(config, **options)
      manager = OnlineManager.new(config, reactor: :thread, **options)
      manager.setup
      ids = options.key?(:store) ? IDS : [*IDS, ["secret-id"]]
      manager.seen_all(ids)
      await { manager.size == ids.size && manager.stats[:announcing].to_i.zero? }
      ids.each { |id| manager.leave(id) }
      await { manager.stats[:errors] >= (config.respond_to?(:offline_all) ? 1 : ids.size) }
      yield manager if block_given?
      manager.stop(timeout: 0)
    end
  RUBY

  # @return [RubyProcess]
  define_method(:played) do |script|
    ruby(prelude + script, limit: 30).tap { |process| expect(process.lines).to include "done" }
  end

  it "are not on standard error when callbacks raise" do
    stderr = played(<<~RUBY).stderr
      [Config, Together, Handler].each { |config| play(config.new) }
      puts "done"
    RUBY

    expect(stderr).to include("Config#offline raised:", "Handler#on_error raised:", "the error that on_error got:")
    # One user, if the reactor is quick.
    expect(stderr).to match(/^.*Together#offline_all \(\d users?\) raised:/)
    expect(stderr).not_to match secret_id
  end

  it "are not on standard error when a callback is slow and a stop times out" do
    stderr = played(<<~RUBY).stderr
      OnlineManager::Watchdog.send(:remove_const, :WARN_AFTER)
      OnlineManager::Watchdog::WARN_AFTER = 0.05

      class Slow < Config
        def offline(user_id) = sleep(0.2)
      end

      manager = OnlineManager.new(Slow.new, reactor: :thread)
      manager.setup
      IDS.each { |id| manager.seen(id) }
      manager.leave(IDS.first)
      await { manager.stats[:delivering_for].to_f > 0.1 }
      manager.stop(timeout: 0)
      puts "done"
    RUBY

    expect(stderr).to include("Slow#offline has been running", "users have not been set offline yet")
    expect(stderr).not_to match secret_id
  end

  it "are not on standard error when a store's callbacks raise and when the store fails" do
    Dir.mktmpdir do |folder|
      stderr = played(<<~RUBY).stderr
        path = #{folder.inspect} + "/presence.sqlite3"
        [Config, Together, Handler].each_with_index do |config, number|
          play(config.new, store: "sqlite:" + path, namespace: number.to_s)
        end
        play(Config.new, store: "sqlite:" + path, namespace: "replaced") do |manager|
          File.delete(path)
          manager.seen(IDS.first)
          await { manager.stats[:store_errors].positive? }
        end
        begin
          manager = OnlineManager.new(Config.new, store: "sqlite:" + path, reactor: :thread)
          manager.setup
          manager.seen(["secret-id"])
        rescue ArgumentError => e
          warn e.message
        end
        puts "done"
      RUBY

      expect(stderr).to include("Config#offline raised, and will be", "Together#offline_all (",
                                "Handler#on_error raised:", "the store has failed", "got an object of the class Array")
      expect(stderr).not_to match secret_id
    end
  end

  context "with Rails" do
    # Runs with a logger of that level, which writes to standard error. Standard output has what `Rails.error` receives.
    # It exists since 7.0.
    define_method(:logged) do |level|
      played(<<~RUBY)
        require "logger"
        require "rails"
        require "online_manager/rails/integration"

        module Reporter
          def self.report(_error, context:, handled:, severity:, source: nil) = puts("reported \#{context[:user_id].inspect}")
        end

        Rails.define_singleton_method(:error) { Reporter }
        Rails.logger = Logger.new($stderr, level: #{level.inspect})
        OnlineManager::Integration.current = OnlineManager::Rails::Integration.new
        [Config, Together, Handler].each { |config| play(config.new) }
        puts "done"
      RUBY
    end

    it "are reported to Rails.error and not to the log" do
      process = logged(:info)

      expect(process.stderr).to match(/ERROR.*Config#offline raised/)
      expect(process.stderr).to match(/Together#offline_all \(\d users?\) raised/)
      expect(process.stderr).not_to match secret_id
      expect(process.lines).to include('reported "secret-id"', "reported :secret_id", "reported 4242424242",
                                       'reported ["secret-id"]')
    end

    it "are in the log at the level debug and at no other" do
      lines = logged(:debug).stderr.lines.grep(secret_id)

      expect(lines).to include(/the user id of that error is "secret-id"/, /the user id of that error is 4242424242/)
      expect(lines).to all include("DEBUG")
    end
  end
end
