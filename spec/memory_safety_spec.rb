# frozen_string_literal: true

require "tmpdir"

# What valgrind sees of the extension's use of memory, while a child process calls everything that it has.
RSpec.describe "Memory" do
  # MEMCHECK=1 is what `rake soak` takes: all reactors, and the conformance examples too.
  is_long = ENV["MEMCHECK"] == "1"

  # An error that valgrind found. What it is depends on where it was noticed: the innermost frame is the first.
  finding = Struct.new(:text) do
    def kind = text[%r{<kind>(.*?)</kind>}, 1]
    def frames = text[%r{<stack>.*?</stack>}m].scan(%r{<frame>.*?</frame>}m)

    # Ruby's garbage collector looks at all that is on the machine's stack, whether it has been written or not. So of
    # what is uninitialised, only what the extension looks at, or has left on the heap, is not Ruby's affair. But what
    # began on the stack of a function of Ruby's is: with Ruby 3.3 that spreads to the objects that the collector finds,
    # and their types, and with these to hashes, which the index of such ids takes in: what is found there says no more
    # where it came from. Everything else is always an error: what Ruby is known to do is in valgrind.supp.
    def serious?
      return true unless kind.start_with?("Uninit")
      return false if origin && !ours?(origin)
      return false if RUBY_VERSION >= "3.3" && text.include?("online_manager::objects::Slot")

      ours?(frames.first) || (ours?(text) && text.include?("created by a heap allocation"))
    end

    def to_s
      places = frames.first(16).map { |frame| "  #{frame[%r{<fn>(.*?)</fn>}, 1]} (#{frame[%r{<obj>(.*?)</obj>}, 1]})" }
      # Without the address, of which there are many for one mistake.
      about = text.scan(%r{<auxwhat>(?:Address 0x\h+ )?(.*?)</auxwhat>}).join(", ")
      ["#{kind}: #{about}", *places].join("\n")
    end

    private

    # The function whose stack it came from, if it did.
    def origin = text[%r{created by a stack allocation</auxwhat>\s*<stack>.*?</stack>}m]

    def ours?(stack) = stack.include?("online_manager.so</obj>")
  end

  around do |example|
    Dir.mktmpdir do |directory|
      @reports = directory
      example.run
    end
  end

  before { skip "there is no valgrind" unless system("valgrind", "--version", out: File::NULL) }

  # Runs Ruby under valgrind, and with it what it forks.
  #
  # @return [Array(RubyProcess, Array<String>)] the process, and what it did wrong
  # @param uninitialised [String] the option that says whether it looks for that, which takes most of the time
  def check(*argv, limit:, uninitialised: "--track-origins=yes", **options)
    process = command("valgrind", "--tool=memcheck", "--quiet", "--fair-sched=try", "--num-callers=60",
                      "--error-limit=no", "--show-leak-kinds=none", uninitialised,
                      "--suppressions=#{RubyProcess::ROOT}/spec/support/valgrind.supp",
                      "--xml=yes", "--xml-file=#{@reports}/%p.xml",
                      RbConfig.ruby, *argv, limit:, **options)
    [process, findings.select(&:serious?).map(&:to_s).uniq]
  end

  define_method(:findings) do
    reports = Dir["#{@reports}/*.xml"].map { |path| File.read(path, encoding: Encoding::BINARY) }
    expect(reports).not_to be_empty
    reports.flat_map { |report| report.scan(%r{<error>.*?</error>}m) }.map { |text| finding.new(text) }
  end

  # Valgrind takes the stacks of fibers for memory that is nobody's, whatever runs on them.
  { thread: %w[start compact stress], eventmachine: %w[start] }.each do |reactor, handlings|
    handlings.each do |memory_stress|
      next unless is_long || [reactor, memory_stress] == [:thread, "start"]

      it "is used as it should be, with the reactor #{reactor.inspect} and #{memory_stress.inspect}", limit: 630 do
        switches = reactor == :thread ? %w[--disable-gems] : %w[-rbundler/setup]
        options = memory_stress == "stress" ? { uninitialised: "--undef-value-errors=no" } : {}
        process, errors = check(*switches, "-Ilib", "spec/support/child/exercise.rb", reactor.to_s, memory_stress,
                                limit: 600, **options)

        expect(errors).to be_empty, errors.join("\n\n")
        expect(process.lines.last).to eq("done"), process.stderr
      end
    end
  end

  (is_long ? %i[thread eventmachine] : []).each do |reactor|
    it "is used as it should be in the conformance examples, with the reactor #{reactor.inspect}", limit: 1_230 do
      process, errors = check("-rbundler/setup", "-S", "rspec", "spec/conformance_spec.rb",
                              "-e", "reactor #{reactor.inspect}", limit: 1_200, env: { "PROGRESS" => nil })

      expect(errors).to be_empty, errors.join("\n\n")
      # Valgrind is too slow for a few, which go by the clock.
      examples, failures = process.stdout.match(/^(\d+) examples, (\d+) failures?/)&.captures.to_a.map(&:to_i)
      expect([examples, failures]).to match([be > 100, be < 20]), process.stdout
    end
  end

  it "is seen to be used as it should not be", limit: 90 do
    _, errors = check("-rfiddle", "-e", <<~RUBY, limit: 60)
      pointer = Fiddle::Pointer.malloc(100, Fiddle::RUBY_FREE)
      pointer[100, 1]
      pointer.call_free
      pointer[0] = 1
    RUBY

    expect(errors).to contain_exactly(
      a_string_starting_with("InvalidRead: is 0 bytes after a block of size 100 alloc'd"),
      a_string_starting_with("InvalidWrite: is 0 bytes inside a block of size 100 free'd")
    )
  end
end
