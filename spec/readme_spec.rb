# frozen_string_literal: true

# Every Ruby snippet of the README is run as it is written. A comment before it, which readers do not see, says what it
# needs around it: `<!-- snippet: setup -->`.
RSpec.describe "README.md" do
  root = File.expand_path("..", __dir__)
  readme = File.read("#{root}/README.md")
  snippets = readme.scan(/(?:<!-- snippet: (\w+) -->\n)?^```ruby\n(.*?)^```/m)

  # @return [String] the snippet, whose line `expression # => value` fails where that is not so
  def checked(snippet)
    snippet.gsub(/^(\s*)(\S.*?) +# => (.+)$/) do
      indent, expression, value = Regexp.last_match.captures
      "#{indent}(#{expression}).then { |value| value == (#{value}) or abort(\"#{expression} is \#{value.inspect}\") }"
    end
  end

  # A config that keeps its block, and what a snippet has when it stands further down.
  config = <<~RUBY
    require "online_manager"

    class OnlineConfig
      def timeout = 60
      def setup(&heartbeat) = @heartbeat = heartbeat
      def online(user_id) = puts("\#{user_id} is online")
      def offline(user_id) = puts("\#{user_id} is offline")
    end

  RUBY

  it "has no snippet that is not run" do
    expect(snippets.map(&:first).tally)
      .to eq("gemfile" => 2, "usage" => 1, "setup" => 1, "on_error" => 1, "stop" => 1)
  end

  snippets.each do |name, snippet|
    line = readme[...readme.index(snippet)].count("\n")

    case name
    when "gemfile"
      it "names gems that there are (line #{line})" do
        process = ruby(<<~RUBY, env: { "SNIPPET" => snippet })
          require "bundler"

          gems = Bundler::Dsl.new.tap { |gemfile| gemfile.instance_eval(ENV.fetch("SNIPPET")) }.dependencies
          puts gems.map(&:name)
        RUBY

        expect(process.lines).to eq [Gem::Specification.load("#{root}/online_manager.gemspec").name, "eventmachine"]
        expect(Bundler.load.dependencies.map(&:name)).to include(*process.lines)
      end
    when "usage"
      it "shows an application that tells who comes and who goes (line #{line})" do
        process = ruby(<<~RUBY) do |child|
          # One user beats on and on, another one once.
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
      it "shows how to end it (line #{line})" do
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

  it "names commands that there are" do
    commands = readme.scan(/^```sh\n(.*?)^```/m).join.lines.map { |line| line[/\S+/] }

    expect(commands).to eq %w[bin/demo bin/test]
    expect(commands.select { |command| File.executable?(File.join(root, command)) }).to eq commands
  end
end
