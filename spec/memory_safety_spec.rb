# frozen_string_literal: true

require "tmpdir"

# Valgrind's errors in the extension, while a child process calls everything that it has.
RSpec.describe "Memory" do
  # MEMCHECK=1 is set by `rake soak`: all reactors, and the conformance examples too.
  is_long = ENV["MEMCHECK"] == "1"

  # An error that valgrind found. Its place is the innermost frame, which comes first.
  finding = Struct.new(:text) do
    def kind = text[%r{<kind>(.*?)</kind>}, 1]
    def frames = text[%r{<stack>.*?</stack>}m].scan(%r{<frame>.*?</frame>}m)

    # Ruby's garbage collector scans the machine stack, initialised or not. So an uninitialised value counts only if the
    # extension uses it or left it on the heap. Even then it does not count if it began on the stack of a Ruby function:
    # with Ruby 3.3, such values spread to the objects that the collector finds and to their types, from there to hash
    # values, and with these into the extension's index of ids, so that an error there no longer shows its origin. All
    # other errors count; the known ones of Ruby are in valgrind.supp.
    def serious?
      return true unless kind.start_with?("Uninit")
      return false if origin && !begun_by_us?
      return false if RUBY_VERSION >= "3.3" && text.include?("online_manager::objects::Slot")

      ours?(frames.first) || (ours?(text) && text.include?("created by a heap allocation"))
    end

    def to_s
      places = frames.first(16).map { |frame| "  #{frame[%r{<fn>(.*?)</fn>}, 1]} (#{frame[%r{<obj>(.*?)</obj>}, 1]})" }
      # Without the address, which differs for the same mistake.
      about = text.scan(%r{<auxwhat>(?:Address 0x\h+ )?(.*?)</auxwhat>}).join(", ")
      ["#{kind}: #{about}", *places].join("\n")
    end

    private

    # The function on whose stack the value began, if it did.
    def origin = text[%r{created by a stack allocation</auxwhat>\s*<stack>.*?</stack>}m]

    # With Ruby 3.4 such values also begin in `protect`, whose stack has room for a result while Ruby runs.
    def begun_by_us?
      ours?(origin) && !(RUBY_VERSION >= "3.4" && origin.include?("<fn>online_manager::protect::protect"))
    end

    def ours?(stack) = stack.include?("online_manager.so</obj>")
  end

  around do |example|
    Dir.mktmpdir do |directory|
      @reports = directory
      example.run
    end
  end

  before { skip "there is no valgrind" unless system("valgrind", "--version", out: File::NULL) }

  # Runs Ruby under valgrind, including the processes that it forks.
  #
  # @return [Array(RubyProcess, Array<String>)] the process, and its errors
  # @param uninitialised [String] valgrind's option for uninitialised values, which take most of the time
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

  # Valgrind takes the stacks of fibers for unallocated memory, whatever runs on them.
  { thread: %w[start compact stress], eventmachine: %w[start] }.each do |reactor, handlings|
    handlings.each do |memory_stress|
      next unless is_long || [reactor, memory_stress] == [:thread, "start"]

      it "is used correctly with the reactor #{reactor.inspect} and #{memory_stress.inspect}", limit: 630 do
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
    it "is used correctly in the conformance examples with the reactor #{reactor.inspect}", limit: 1_230 do
      process, errors = check("-rbundler/setup", "-S", "rspec", "spec/conformance_spec.rb",
                              "-e", "reactor #{reactor.inspect}", limit: 1_200, env: { "PROGRESS" => nil })

      expect(errors).to be_empty, errors.join("\n\n")
      # A few examples depend on time, for which valgrind is too slow.
      examples, failures = process.stdout.match(/^(\d+) examples, (\d+) failures?/)&.captures.to_a.map(&:to_i)
      expect([examples, failures]).to match([be > 100, be < 20]), process.stdout
    end
  end

  it "is reported when it is used incorrectly", limit: 90 do
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
