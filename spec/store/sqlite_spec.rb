# frozen_string_literal: true

require "etc"
require "online_manager/command"
require "stringio"
Dir[File.join(__dir__, "../support/store/*.rb")].each { |file| require file }

# Faults of a SQLite file.
RSpec.describe Stores::Sqlite do
  include_context "with applications on a store", described_class

  # @return [String] the path of a store that an application has used
  def used_store
    application = deploy
    application.start.ask("manager.seen(7) && wait { manager.online?(7) }")
    application.workers.first.finish
    expect(File.size(application.store.path)).to be > 4_096
    application.store.path
  end

  # A config that records whether `setup` was called.
  let(:config) do
    Class.new do
      attr_reader :is_set_up

      def timeout = 1
      def setup = @is_set_up = true
      def online(_user_id) = nil
      def offline(_user_id) = nil
    end.new
  end

  it "is created without warnings by 4 processes that start at the same moment" do
    process = ruby(<<~RUBY, deploy.store.folder)
      require "online_manager"

      class Config
        def timeout = 1
        def setup = nil
        def online(_user_id) = nil
        def offline(_user_id) = nil
      end

      20.times do |number|
        everybody, ready = IO.pipe
        processes = Array.new(4) do
          fork do
            ready.close
            everybody.read # until the last process has closed it
            OnlineManager.setup(Config.new, store: "sqlite:\#{ARGV[0]}/\#{number}", reactor: :thread)
            exit!(true)
          end
        end
        ready.close
        processes.each { |pid| Process.wait2(pid).last.success? or abort "it failed" }
      end
    RUBY

    expect([process.stderr, process.success?]).to eq ["", true]
  end

  # Online in this process through a link, and in another one through the file.
  it "is one store, whether a process names it or a link to it" do
    file = deploy.store.path
    link = File.join(File.dirname(file), "link.sqlite3")
    File.symlink(File.basename(file), link)
    manager = OnlineManager.new(config, store: "sqlite:#{link}", namespace: "link", reactor: :thread).tap(&:setup)
    manager.seen("through the link", timeout: 60)
    ruby(<<~RUBY, file) do |process|
      require "online_manager"

      class Config
        def timeout = 1
        def setup = nil
        def online(_user_id) = nil
        def offline(_user_id) = nil
      end

      OnlineManager.setup(Config.new, store: "sqlite:\#{ARGV[0]}", namespace: "link", reactor: :thread)
      manager = OnlineManager.current("link")
      manager.seen("through the file", timeout: 60)
      sleep 0.01 until manager.size == 2
      puts "both"
      $stdin.read
    RUBY
      process.wait_for("both")
      wait_until { manager.size == 2 }
      out = StringIO.new
      expect(OnlineManager::Command.new(out:, err: out).run(["store", link, "-n", "link", "--users"])).to eq 0
      expect(out.string).to include "through the link", "through the file"
      process.close
    end
  ensure
    manager&.stop
  end

  describe "that is no good from the start" do
    # Expects an error that names the path and the fault, before anything has started.
    def expect_error(path, message)
      expect { OnlineManager.setup(config, store: "sqlite:#{path}", namespace: "bad", reactor: :thread) }
        .to raise_error(OnlineManager::StoreError) { |error| expect(error.message).to include(path).and match(message) }
      expect([config.is_set_up, OnlineManager.current("bad")]).to eq [nil, nil]
    ensure
      OnlineManager.current("bad")&.stop
    end

    # The same, for a file that must not change.
    def expect_error_and_no_change(path, message)
      before = File.binread(path)
      expect_error(path, message)
      expect(File.binread(path) == before).to be true
    end

    it "raises a StoreError, which is an Error" do
      expect(OnlineManager::StoreError.ancestors).to include OnlineManager::Error
    end

    it "is refused with an error: a corrupt file" do
      path = used_store
      File.open(path, "r+b") { |file| file.seek(100) and file.write("\xFF".b * 3_000) }
      expect_error_and_no_change(path, /corrupt|malformed/i)
    end

    it "is refused with an error: a truncated file" do
      path = used_store
      File.truncate(path, 4_096)
      expect_error_and_no_change(path, /corrupt|malformed/i)
    end

    it "is refused with an error: a file that is no database" do
      path = deploy.store.path
      File.write(path, "Dear diary, today I have been online.\n" * 1_000)
      expect_error_and_no_change(path, /not a database|no database/i)
    end

    it "is refused with an error: a file of a newer version" do
      path = used_store
      store = described_class.new(File.dirname(path))
      version = Integer(store.execute("PRAGMA user_version"))
      expect(version).to be_positive
      store.execute("PRAGMA user_version = #{version + 1}")
      expect_error_and_no_change(path, /version #{version + 1}|newer/i)
      expect(store.execute("PRAGMA user_version")).to eq (version + 1).to_s
    end

    it "is refused with an error: a missing folder" do
      expect_error("#{deploy.store.folder}/missing/presence.sqlite3", /folder|directory/i)
      expect(Dir["#{deploy.store.folder}/*"]).to be_empty
    end

    it "is refused with an error: a link into a missing folder" do
      path = deploy.store.path
      File.symlink("missing/presence.sqlite3", path)
      expect_error(path, %r{it is a link to /.*/missing/presence\.sqlite3: its folder cannot be reached: No such file})
    end

    it "is refused with an error: a link to itself" do
      path = deploy.store.path
      File.symlink(path, path)
      expect_error(path, /its links cannot be followed/)
    end

    it "is refused with an error: a folder in its place" do
      path = deploy.store.path
      Dir.mkdir(path)
      expect_error(path, /folder|directory|open/i)
    end

    # As another user, since root may do anything.
    def message_of_nobody(path)
      process = ruby(<<~RUBY, path, Etc.getpwnam("nobody").uid.to_s)
        require "online_manager"

        class Config
          def timeout = 1
          def setup = puts("is set up")
          def online(_user_id) = nil
          def offline(_user_id) = nil
        end

        Process::UID.change_privilege(Integer(ARGV[1])) if Process.uid.zero?
        abort "it is writable" if File.writable?(ARGV[0]) && File.writable?(File.dirname(ARGV[0]))
        begin
          OnlineManager.setup(Config.new, store: "sqlite:\#{ARGV[0]}")
        rescue OnlineManager::StoreError => e
          puts e.message
        end
      RUBY
      expect([process.stderr, process.success?]).to eq ["", true]
      process.stdout
    end

    { "file" => -> { used_store }, "folder" => -> { deploy.store.path } }.each do |what, path|
      it "is refused with an error: a #{what} that is not writable" do
        path = instance_exec(&path)
        File.chmod(0o444, path) if File.exist?(path)
        File.chmod(0o555, File.dirname(path))
        what_not = what == "file" ? "read and write the file" : "write the folder"
        expect(message_of_nobody(path)).to include(path).and match(/\(uid \d+\) may not #{what_not} .*chown or chmod/)
      end
    end

    # The file, its folder and the one above it.
    {
      "a file that may not be read" =>
        [0o000, 0o777, 0o755, /\(uid \d+\) may not read and write the file \S+ \(mode 000, /],
      "a file in a folder that may not be written" =>
        [0o666, 0o555, 0o755, /\(uid \d+\) may not write the folder \S+ \(mode 555, /],
      "a folder that may not be entered" =>
        [0o666, 0o777, 0o700, /\(uid \d+\) may not enter the folder \S+ \(mode 700, /]
    }.each do |what, (file_mode, folder_mode, above_mode, message)|
      it "is refused with an error: #{what}" do
        above = deploy.store.folder
        path = File.join(above, "folder", "presence.sqlite3")
        Dir.mkdir(File.dirname(path))
        FileUtils.mv(used_store, path)
        File.chmod(file_mode, path)
        File.chmod(folder_mode, File.dirname(path))
        File.chmod(above_mode, above)
        expect(message_of_nobody(path)).to start_with("#{path}: ").and match(message)
      end
    end
  end

  describe "that goes wrong later" do
    # Seconds.
    trouble = Integer(ENV.fetch("STORE_TROUBLE", 1))

    # Expects that heartbeats work, and that each process reports the store's fault once.
    #
    # @param count [Integer] the number of faults so far
    define_method(:expect_trouble) do |application, count: 1|
      workers = application.serving
      expect_reports = lambda do
        errors = application.store_errors.map { |line| [line.pid, line.detail[/\A[\w:]+(?=: .)/]] }
        expect(errors).to match_array(workers.map { |worker| [worker.pid, "OnlineManager::StoreError"] } * count)
      end

      eventually(limit: 30, &expect_reports)
      throughout(trouble) do
        expect_reports.call
        expect(workers.map { |worker| worker.ask("Array.new(100) { manager.seen(\"user 9\") }.uniq") }).to all eq [true]
      end
    end

    # @return [Stores::Application] an application with 10 users who stay
    def deploy_with_users(*store, processes:)
      application = deploy(*store)
      application.start_all(processes)
      application.crowd.come(users(10))
      application.expect_all(users(10), :online)
      application.expect_committed(10)
      application
    end

    # Mounts a small file system, and yields its folder.
    def on_small_disk
      folder = Dir.mktmpdir("online_manager_disk")
      mounted = command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder)
      skip "this machine lets no tmpfs be mounted: #{mounted.stderr}" unless mounted.success?

      begin
        yield folder
      ensure
        expect(command("umount", "--lazy", folder)).to be_success
      end
    ensure
      Dir.rmdir(folder)
    end

    # Fills the remaining space.
    def fill(path)
      File.open(path, "wb") { |file| loop { file.syswrite("\0" * 4_096) } }
    rescue Errno::ENOSPC
      expect(File.size(path)).to be > 1_000_000
    end

    it "goes on when the disk is full, and writes the rest when it no longer is", limit: 120 do
      on_small_disk do |folder|
        application = deploy_with_users(described_class.new(folder), processes: 1)
        2.times do |round|
          fill("#{folder}/ballast")
          # Long ids, which do not fit into what the file and its log have left.
          come = Array.new(100) { |number| "#{number} of round #{round} #{"x" * 6_000}" }
          application.crowd.come(come)
          expect_trouble(application, count: round + 1)
          # The first of them may have fitted into what the file had left.
          expect(application.transitions.size).to be_between(10 + (round * 100), 60 + (round * 100))

          File.delete("#{folder}/ballast")
          application.expect_all(come + users(10), :online)
        end
        expect(expect_good_end(application)).to have_attributes(transitions: 420, repeats: 0)
        application.store.check
        application.workers.each(&:finish)
      end
    end

    it "goes on when another program locks it, and writes the rest when it no longer does", limit: 120 do
      application = deploy_with_users(processes: 2)
      command("sqlite3", application.store.path) do |program|
        program.puts(".timeout 10000\nBEGIN EXCLUSIVE;\nSELECT 'locked';")
        program.wait_for("locked")
        application.crowd.come(users(20, "late"))
        application.crowd.fall_silent(users(5))
        expect_trouble(application)
        expect(application.transitions.size).to eq 10
        program.puts("ROLLBACK;\nSELECT 'free';")
        program.wait_for("free")
        program.close
      end
      application.expect_all(users(20, "late"), :online)
      application.expect_all(users(5), :offline)
      expect(expect_good_end(application)).to have_attributes(transitions: 60, repeats: 0)
      application.store.check
    end

    # Each user sends heartbeats to one process. Only the second process has just asked who is online.
    it "goes on when its write-ahead log is deleted: who sends heartbeats stays online", limit: 120 do
      application = deploy
      workers = application.start_all(2)
      crowds = [users(10), users(10, "other")]
      workers.zip(crowds) { |worker, crowd| worker.ask("start_heartbeats(args.first)", crowd) }
      application.expect_all(crowds.flatten, :online)
      eventually { expect(application.store.execute("SELECT count(*) FROM events")).to eq "0" }
      # What is in the log is lost with it.
      application.store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
      expect(workers.last.ask("wait { manager.online_users }")).to match_array(crowds.flatten)
      # Its index, which stays, knows more than the new log has.
      wait_until { File.size("#{application.store.path}-wal").positive? }

      File.delete("#{application.store.path}-wal")
      expect_trouble(application)
      throughout(4 * application.timeout) { expect(application.transitions.size).to eq 20 }
      workers.each do |worker|
        expect(worker.ask("manager.online_users")).to match_array(crowds.flatten)
        worker.ask("stop_heartbeats")
      end
      application.expect_all(crowds.flatten, :offline)
      expect(expect_good_end(application, crowds.flatten.to_h { |user| [user, 1] })).to have_attributes(repeats: 0)
      application.store.check
      workers.each(&:finish)
    end

    # The second time when the user is due, and only the new file knows that.
    it "is deleted twice within a timeout, and a user who has left goes offline all the same", limit: 60 do
      application = deploy(timeout: 3)
      worker = application.start
      worker.ask("manager.seen(*args)", "ann")
      application.expect_all(["ann"], :online)
      2.times do
        throughout(1.8) { worker.ask("nil") }
        application.store.delete
      end
      application.expect_all(["ann"], :offline)
    end

    # The data are lost, so the online users come online once more.
    it "goes on in a new file when it is deleted, and versions keep growing", limit: 120 do
      application = deploy_with_users(processes: 2)
      application.log.append(:lost)
      application.store.delete
      application.crowd.come(users(5, "late"))
      expect_trouble(application)
      application.expect_all(users(5, "late"), :online)
      application.workers.each do |worker|
        eventually { expect(worker.ask("manager.online_users")).to match_array(users(10) + users(5, "late")) }
      end
      expect(application.workers.count(&:lease_holder?)).to eq 1

      expect_good_end(application)
      application.store.check
    end
  end
end
