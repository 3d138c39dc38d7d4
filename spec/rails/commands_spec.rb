# frozen_string_literal: true

require_relative "../support/rails/example_app"

# A console, a runner, a rake task: they load the application, and serve another purpose.
RSpec.describe "Commands of the example application" do
  timeout = 2
  # Prints whether this process participates in the store, and who is online according to the database.
  look = "puts [:looked, OnlineManager.current.stats[:owner], *User.online.order(:name).pluck(:name)].join(' ')"
  # By then a process that participates would have begun.
  look_late = "sleep #{timeout * 2}; #{look}"

  before(:context) do
    @app = ExampleApp.new(timeout:)
    @app.write("lib/tasks/look.rake", "task(look: :environment) { #{look_late} }")
  end

  after(:context) { @app.remove }

  after { @started&.each(&:kill) }

  def start(*argv)
    (@started ||= []) << RubyProcess.new(*argv, chdir: @app.folder, env: @app.env)
    @started.last
  end

  def runner(script) = start("bin/rails", "runner", script)

  # Starts all of them, so that they run at the same time.
  def all_commands(line)
    console = start("bin/rails", "console")
    [line, "exit"].each { |command| console.puts(command) }
    [runner(line), console, start("bin/rails", "look"), start("bundle", "exec", "rake", "look")]
  end

  # @return [String] what the command printed. It ends soon afterwards.
  def outcome(process)
    seen = process.wait_for(/\Alooked.*/, limit: ExampleApp::LIMIT)[0]
    process.finish(limit: 10)
    expect(process).to be_success
    seen
  end

  context "beside a server" do
    before(:context) { @server = @app.boot }

    after(:context) { @server.kill }

    it "end by themselves and leave it to the server to set users offline, their own too", limit: 120 do
      present = @server.visitor("present")
      present.send_heartbeats_every(timeout / 6.0, over: :http)
      eventually(limit: 15) { expect(@app.online).to eq ["present"] }
      before = runner("OnlineManager.current.seen(User.named('brief').id); puts :looked")
      expect(outcome(before)).to eq "looked"

      expect(all_commands(look_late).map { |process| outcome(process) }).to all(eq("looked false present"))
      expect(@app.history("present", "brief"))
        .to eq("present" => [%i[online heartbeat]], "brief" => [%i[online heartbeat], %i[offline timeout]])
      theirs = @app.transitions.select { |each| %w[present brief].include?(each.user) }
      expect(theirs.map(&:process)).to all(eq @server.process.pid)
    end
  end

  context "without a server" do
    # Users who were online when the server was killed stay online until a process participates in the store.
    before do
      server = @app.boot
      server.visitor("left behind").heartbeat
      # The line in the log comes after the row.
      eventually { expect(@app.history("left behind").values).to eq [[%i[online heartbeat]]] }
      server.kill
    end

    it "leave the store alone and set nobody offline unless they send heartbeats", limit: 120 do
      expect(all_commands(look_late).map { |process| outcome(process) }).to all(match(/\Alooked false .*left behind/))
      expect(@app.history("left behind").values).to eq [[%i[online heartbeat]]]

      one_with_heartbeats = <<~RUBY
        id = User.named("own").id
        Thread.new { loop { OnlineManager.current.seen(id) && sleep(#{timeout / 6.0}) } }
        sleep 0.1 while User.uncached { User.find_by!(name: "left behind").online? }
        #{look}
      RUBY
      expect(outcome(runner(one_with_heartbeats))).to eq "looked true own"
      # Callbacks that the server had not committed when it was killed are repeated.
      expect(@app.history("left behind")["left behind"].uniq).to eq [%i[online heartbeat], %i[offline timeout]]
    end
  end

  context "with a store whose folder is missing" do
    before(:context) { @image = ExampleApp.new(timeout:, store: "sqlite:missing/presence.sqlite3") }

    after(:context) { @image.remove }

    it "run, as in the build of an image, and do not create it", limit: 120 do
      [%w[bundle exec rake assets:precompile], %w[bin/rails runner puts(:looked)]].each do |argv|
        process = command(*argv, chdir: @image.folder, env: @image.env, limit: 60)
        expect(process).to be_success, process.stderr
      end
      expect(Dir.exist?("#{@image.folder}/missing")).to be false
    end
  end

  context "with the store :memory" do
    before(:context) { @alone = ExampleApp.new(timeout:, store: "memory") }

    after(:context) { @alone.remove }

    it "set their own online users offline at their end, and nobody else", limit: 120 do
      setting = "User.named(%q(other)).update!(online: true); OnlineManager.current.seen(User.named(%q(own)).id); " \
                "puts User.online.order(:name).pluck(:name).inspect"
      process = command("bin/rails", "runner", setting, chdir: @alone.folder, env: @alone.env, limit: 60)
      expect(process.lines).to eq ['["other", "own"]']
      expect(process).to be_success

      expect(@alone.online).to eq ["other"]
      expect(@alone.history("own", "other")).to eq("own" => [%i[online heartbeat], %i[offline stop]], "other" => [])
    end
  end
end
