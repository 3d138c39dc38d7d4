# frozen_string_literal: true

require "tmpdir"
require_relative "support/rails/rails_bundle"
Dir[File.join(__dir__, "support/store/*.rb")].each { |file| require file }

# Runs every Ruby snippet of the README and of the guide to sessions as it is written. An HTML comment before a snippet
# names what it needs around it: `<!-- snippet: setup -->`.
RSpec.describe "README.md" do
  root = File.expand_path("..", __dir__)
  readme = %w[README.md docs/sessions.md].map { |path| File.read("#{root}/#{path}") }.join
  snippets = readme.scan(/(?:<!-- snippet: (\w+) -->\n)?^```ruby\n(.*?)^```/m)

  # @return [String] the snippet, with each `expression # => value` turned into a check
  def checked(snippet)
    snippet.gsub(/^(\s*)(\S.*?) +# => (.+)$/) do
      indent, expression, value = Regexp.last_match.captures
      "#{indent}(#{expression}).then { |value| value == (#{value}) or abort(\"#{expression} is \#{value.inspect}\") }"
    end
  end

  # A config that keeps its block, for the snippets further down.
  config = <<~RUBY
    require "online_manager"

    class OnlineConfig
      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id) = puts("\#{user_id} is online")
      def offline(user_id) = puts("\#{user_id} is offline")
    end

  RUBY

  it "has no snippet without an example" do
    expect(snippets.map(&:first).tally)
      .to eq("gemfile" => 2, "usage" => 1, "setup" => 1, "rails" => 1, "store" => 1, "redis" => 1,
             "on_error" => 1, "stop" => 1, "sessions" => 1)
  end

  snippets.each do |name, snippet|
    line = readme[...readme.index(snippet)].count("\n")

    case name
    when "gemfile"
      it "names gems that exist (line #{line})" do
        process = ruby(<<~RUBY, env: { "SNIPPET" => snippet })
          require "bundler"

          gems = Bundler::Dsl.new.tap { |gemfile| gemfile.instance_eval(ENV.fetch("SNIPPET")) }.dependencies
          puts gems.map(&:name)
        RUBY

        expect(process.lines).to eq [Gem::Specification.load("#{root}/online_manager.gemspec").name, "eventmachine"]
        expect(Bundler.load.dependencies.map(&:name)).to include(*process.lines)
      end
    when "usage"
      it "shows an application that prints who comes online and goes offline (line #{line})" do
        process = ruby(<<~RUBY) do |child|
          # One user keeps sending heartbeats, another sends one.
          HEARTBEATS = Thread::Queue.new(["ann"])
          Thread.new do
            loop do
              HEARTBEATS << "ben"
              sleep 0.5
            end
          end
          def next_heartbeat = HEARTBEATS.pop

          #{checked(snippet)}
        RUBY
          came = child.wait_for("ann is online") && Wait.monotonic
          child.wait_for("ann is offline")
          expect(Wait.monotonic - came).to be_between(4.9, 8)
          child.signal(:INT)
        end

        expect(process.lines).to eq ["ann is online", "ben is online", "ann is offline", "ben is offline"]
        expect(process.status.termsig).to eq Signal.list["INT"]
      end
    when "setup"
      it "shows how heartbeats come from anywhere (line #{line})" do
        process = ruby(<<~RUBY)
          #{config}
          #{checked(snippet)}

          sleep 0.01 while manager.online?(7)
          Thread.new { manager.seen(8) }.join
        RUBY

        expect(process.lines).to eq ["7 is online", "7 is offline", "8 is online", "8 is offline"]
        expect(process).to be_success, process.stderr
      end
    when "sessions"
      it "shows the sessions of a user (line #{line})" do
        process = ruby(<<~RUBY)
          #{config}
          OnlineManager.setup(OnlineConfig.new)
          manager = OnlineManager.current
          #{checked(snippet)}

          sleep 0.01 while manager.online?(7)
        RUBY

        expect(process.lines).to eq ["7 is online", "7 is offline"]
        expect(process).to be_success, process.stderr
      end
    when "rails"
      it "shows how a connection identifies its user (line #{line})" do
        process = ruby(<<~RUBY, env: RailsBundle::ENVIRONMENT)
          require "bundler/setup"
          require "rails"
          require "action_cable/engine"
          require "online_manager"

          module ApplicationCable; end
          #{snippet}
          connection = ApplicationCable::Connection.allocate
          connection.current_user = Struct.new(:id).new(7)
          user_id, namespace = connection.class.online_manager_presence
          p connection.instance_exec(&user_id), namespace
        RUBY

        expect(process.lines).to eq(%w[7 nil]), process.stderr
      end
    when "store"
      it "shows how several processes share a store (line #{line})", limit: 60 do
        Dir.mktmpdir do |folder|
          Dir.mkdir("#{folder}/storage")
          expect(transitions_with_store("#{config}\n#{checked(snippet)}", "storage/presence.sqlite3", folder))
            .to eq("ann" => %w[online offline], "ben" => %w[online offline])
        end
      end
    when "redis"
      it "shows how processes on several machines share a store (line #{line})", limit: 60 do
        # The config is in the section before. The usual port may be taken on this machine.
        before = snippets.assoc("store").last[/^class.*?^end$/m]
        snippet = checked(snippet).sub("127.0.0.1:6379", "127.0.0.1:#{Stores::RedisServer.common.port}")
        url = snippet[/"(redis:.*?)"/, 1]
        Dir.mktmpdir do |folder|
          expect(transitions_with_store("#{config}\n#{before}\n#{snippet}", url, folder))
            .to eq("ann" => %w[online offline], "ben" => %w[online offline])
        end
      end
    when "on_error"
      it "shows where an error goes (line #{line})" do
        process = ruby(<<~RUBY)
          #{config}
          #{checked(snippet)}

          class OnlineConfig
            undef_method :offline
            def offline(_) = raise("no database")
          end
          OnlineManager.setup(OnlineConfig.new)
          OnlineManager.current.seen(7)
        RUBY

        expect(process.lines).to eq ["7 is online"]
        expect(process.stderr).to eq "user 7: no database\n"
      end
    when "stop"
      it "shows how to stop the manager (line #{line})" do
        process = ruby(<<~RUBY)
          #{config}
          OnlineManager.setup(OnlineConfig.new)
          manager = OnlineManager.current
          manager.seen(7)
          #{checked(snippet)}
          puts manager.stop(timeout: 10), manager.seen(7), "end"
        RUBY

        expect(process.lines).to eq ["7 is online", "7 is offline", "0", "false", "end"]
        expect(process).to be_success, process.stderr
      end
    end
  end

  # Starts a number of processes of one script, which print when they are ready, and yields them.
  def with_processes(number, script, folder, started = [], &block)
    return block.call(started) if started.size == number

    ruby(script, chdir: folder) do |process|
      process.wait_for("ready")
      result = with_processes(number, script, folder, [*started, process], &block)
      process.close
      return result
    end
  end

  # @param setup [String] the setup code of four processes that share a store
  # @return [Hash{String => Array<String>}] the transitions of each user, ordered by version
  def transitions_with_store(setup, store, folder)
    script = <<~RUBY
      #{setup.sub("timeout = 60", "timeout = 2")}
      OnlineManager.current.start
      puts "ready"
      $stdin.each_line(chomp: true) { |user_id| OnlineManager.current.seen(user_id) }
    RUBY
    said = with_processes(4, script, folder) { |processes| send_heartbeats_and_kill(processes, store, folder) }
    transitions = said.grep(/ is /).map { |text| [text[/\w+/], text[/online|offline/], text[/\d+/].to_i] }
    transitions.uniq.sort_by(&:last).group_by(&:first).transform_values { |all| all.map { _1[1] } }
  end

  # ben sends one heartbeat, ann sends one in each process in turn; the first process, which may deliver, is killed
  # meanwhile.
  #
  # @return [Array<String>] the output of the processes
  def send_heartbeats_and_kill(processes, store, folder)
    processes.first.puts("ben")
    processes.first.puts("ann")
    wait_until { processes.flat_map(&:lines).grep(/ is online/).size == 2 }
    processes.first.signal(:KILL)
    send_heartbeats_meanwhile(processes.drop(1)) do
      throughout(3.6) { expect(look(store, folder)).to include('"ann"') }
    end
    wait_until(limit: 20) { look(store, folder).include?("online: 0\nwaiting to be delivered: 0") }
    processes.flat_map(&:lines)
  end

  # ann sends a heartbeat to each process in turn, on a thread: what the block does takes longer on a busy machine.
  def send_heartbeats_meanwhile(processes)
    sender = Thread.new do
      processes.cycle do |process|
        process.puts("ann")
        sleep 0.4 # rubocop:disable OnlineManager/BareSleep -- the interval of the heartbeats
      end
    end
    yield
  ensure
    sender.kill.join
  end

  # The output of the command that the section describes.
  def look(store, folder)
    command(RbConfig.ruby, "-I#{RubyProcess::ROOT}/lib", "#{RubyProcess::ROOT}/exe/online_manager", "store",
            store, "--users", chdir: folder).stdout
  end

  it "names commands that exist" do
    commands = readme.scan(/^```sh\n(.*?)^```/m).join.lines.map { |line| line[/\S+/] }

    expect(commands)
      .to eq ["bin/demo", "bin/test", "bin/rails", "bin/rails", *["online_manager"] * 5, "redis-server"]
    expect(command("which", commands.pop)).to be_success
    paths = commands.map { |command| command.include?("/") ? command : "exe/#{command}" }
    paths.map! { |path| path.sub("bin/rails", "examples/rails/bin/rails") }
    expect(paths.select { |path| File.executable?(File.join(root, path)) }).to eq paths
    expect(Dir["lib/generators/*/*/*_generator.rb", base: root])
      .to eq ["lib/generators/online_manager/install/install_generator.rb"]
  end
end
