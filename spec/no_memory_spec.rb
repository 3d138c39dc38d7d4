# frozen_string_literal: true

# Ruby leaves native functions by `longjmp` if there is no memory for an object. A user who was claimed for a callback
# must not stay claimed then.
RSpec.describe "Without memory" do
  restarted = /the thread that calls offline was ended by #<NoMemoryError.*: it has been restarted/

  # A real lack: the user's id is a String that is longer than what the process may still allocate.
  { "offline" => "Config", "offline_all" => "ConfigOfMany" }.each do |callback, config|
    it "for the id of a user, #{callback} is called later, once" do
      skip "there is no /proc" unless File.exist?("/proc/self/status")

      # Another malloc arena, for the thread that takes the place of the reactor, would take the rest of the memory.
      process = ruby(<<~RUBY, env: { "MALLOC_ARENA_MAX" => "1" })
        require "./spec/support/child/no_memory"
        SIZE = 64 << 20
        config = #{config}.new
        manager = start(config)
        id = "x" * SIZE
        manager.seen(id)
        GC.start

        # There is room for the tracker's copy of the id, and not for Ruby's.
        used = File.read("/proc/self/status")[/VmSize:\\s+(\\d+)/, 1].to_i * 1024
        limit = Process.getrlimit(:AS)
        Process.setrlimit(:AS, used + (SIZE * 3 / 2), limit.last)
        manager.leave(id)
        sleep 0.2
        Process.setrlimit(:AS, *limit)

        wait_until { config.calls.size == 2 }
        manager.stop
        puts config.take.map { |name, user| [name, user.size] }.inspect, manager.stats[:departing]
      RUBY

      expect(process.stderr.lines).to all match(restarted)
      expect(process.lines).to eq ["[[:online, #{64 << 20}], [:offline, #{64 << 20}]]", "0"]
    end
  end

  describe "for one object of a callback's call" do
    include_context "with a faulty extension"

    %w[Config ConfigOfMany].product(%w[memory sqlite]).each do |config, store|
      it "nobody is lost: #{config} with the store #{store}", limit: 90 do
        process = ruby(<<~RUBY, store, limit: 60)
          #{faulty}
          require "./spec/support/child/no_memory"

          config = #{config}.new
          manager = start(config, **(ARGV[0] == "sqlite" ? { store: "sqlite:\#{Dir.mktmpdir}/presence.sqlite3" } : {}))
          ids = ["a", :b, 7, ARGV[0] == "sqlite" ? 2**70 : [8]]
          manager.seen_all(ids)

          14.times do |number|
            wait_until { config.calls.size == ids.size }
            Faults.lack_memory(number)
            ids.each { |id| again_without_memory { manager.leave(id) } }
            wait_until { config.calls.size == 2 * ids.size }
            without = !Faults.lacks_memory?
            Faults.lack_memory(number)
            again_without_memory { manager.seen_all(ids) }
            Faults.lack_memory(-1)
            wait_until { config.calls.size == 3 * ids.size }

            calls = config.take.group_by(&:last).transform_values { |of_id| of_id.map(&:first) }
            puts "\#{without} \#{calls == ids.to_h { |id| [id, %i[online offline online]] } || calls.inspect}"
            ids.each { |id| config.calls << [:online, id] }
          end
          puts manager.stats.values_at(:announcing, :departing).inspect
          exit!
        RUBY

        expect(process.stderr.lines).to all match(restarted)
        *rounds, stuck = process.lines
        expect(rounds.uniq).to contain_exactly("true true", "false true").or contain_exactly("true true")
        expect(rounds.size).to eq 14
        expect(stuck).to eq(store == "memory" ? "[0, 0]" : "[nil, nil]")
      end
    end
  end
end
