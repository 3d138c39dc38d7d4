# frozen_string_literal: true

require_relative "support/words"

# The project's vocabulary: one word for one thing, and the word of the field. A word that it has replaced must not come
# back, neither in code nor in comments, messages, documents or file names.
RSpec.describe "The vocabulary" do
  words = Words.new(
    "beat|beats|beaten|beating" => '"heartbeat", "sends a heartbeat"',
    "tell|tells|telling|told" => '"write", "report", "send" or "print"; for differences "distinguish"',
    "whoever|whomever|of whom|for whom|to whom" => 'the noun: "a user who …", "the process that …"',
    "bury|buries|buried|burying" => '"dead letter", `dead_letter`',
    "revive|revives|revived|reviving" => '"requeue" for dead letters, "rejoin" for users',
    "attend|attends|attended|attending" => '"register"',
    "farewell" => '"shutdown"',
    "outline|outlines" => '"summary"',
    "rouse|rouses|roused|rousing" => '"wake"',
    "wish|wishes|wished" => '"request": `LeaseRequest`',
    "park|parks|parked" => '"back off", `BackingOff`',
    "era|eras" => '`ProcessLocal`, `ProcessValue`, "process"',
    "the host of a|calls the host" => '"callback target", `CallbackTarget`',
    "whose time has come" => '"due"',
    "so many" => '"a number of", or the number itself',
    "what it came to" => '"the result"',
    "is looked at|are looked at|is looked at by" => '"is checked" or "is scheduled"',
    "breath" => "`MIN_WRITE_INTERVAL`",
    "patience" => "the name of the limit: `REPLY_TIMEOUT`, `BUSY_TIMEOUT`, `WARN_AFTER`",
    "giving way" => '"yield", `MAX_YIELDS`',
    "unharmed" => "`fork_safe`",
    "beat otherwise|heartbeat otherwise" => "`heartbeat_slow`"
  )

  # Files without prose of ours: what is built or drawn, and lists that other programs write.
  generated = %w[.so .bundle .lock .svg .png]
  folders = "{.ci,.github,bench,bin,docs,examples,exe,ext,lib,rakelib,rubocop,sig,spec}"

  # Where such a word is right: the path, a part of the line, and the reason.
  exceptions = [
    ["spec/words_spec.rb", "", "lists the words"],
    ["spec/support/words.rb", "", "explains how identifiers are read"]
  ]

  files = Dir.chdir(RubyProcess::ROOT) do
    Dir["{#{folders}/**/*,*.{md,toml,gemspec},Gemfile,Rakefile,.rubocop.yml}"].select do |path|
      File.file?(path) && !generated.include?(File.extname(path)) && !path.match?(%r{(?:\A|/)(?:target|tmp|log)/})
    end
  end
  found = files.flat_map { |path| words.find(path, File.read(File.join(RubyProcess::ROOT, path), encoding: "UTF-8")) }
  allowed = ->(finding, (path, part, _)) { finding.path == path && finding.text.include?(part) }

  it "is kept by every file" do
    wrong = found.reject { |finding| exceptions.any? { |exception| allowed.call(finding, exception) } }
    expect(wrong).to be_empty, -> { "#{wrong.size} words to replace:\n#{wrong.join("\n")}" }
  end

  it "has no exception that is not needed" do
    needless = exceptions.reject { |exception| found.any? { |finding| allowed.call(finding, exception) } }
    expect(needless).to be_empty
  end

  it "covers code, documents and specs" do
    expect(files).to include(
      "README.md", "docs/state_machine.md", "ext/store/src/redis/write.lua", "lib/online_manager.rb", "Cargo.toml",
      "lib/online_manager/rails/assets/online_manager.js", "sig/online_manager.rbs", "bin/setup",
      ".github/workflows/ci.yml", "spec/guards/store.yml"
    )
  end

  describe "its check" do
    # @return [Array<Array>] path, line and word of what is found in a file
    define_method(:find) do |text, path: "lib/some.rb"|
      words.find(path, text).map { |finding| [finding.path, finding.line, finding.word] }
    end

    words.to_a.each do |word|
      it "finds the planted word #{word.inspect}" do
        expect(find("# The first line.\n# Here #{word.upcase} stands.\n")).to include(["lib/some.rb", 2, word.upcase])
      end
    end

    it "finds a word in an identifier, a message and a file name" do
      expect(find("def tell_again = raise(\"not told\")\n").map(&:last)).to eq %w[tell told]
      expect(find("struct LeaseWish;\n").map(&:last)).to eq %w[Wish]
      expect(find("", path: "lib/bury.rb")).to eq [["lib/bury.rb", 0, "bury"]]
    end

    it "finds a phrase that goes on in the next line of a comment" do
      expect(find("    // of users there are so\n    // many that\n")).to eq [["lib/some.rb", 1, "so many"]]
    end

    it "leaves longer words alone" do
      expect(find("A heartbeat, an operation, a spark, unbeaten.")).to be_empty
    end

    it "says what to write instead" do
      expect(words.find("lib/some.rb", "\n  # It is told.\n").map(&:to_s))
        .to eq ["lib/some.rb:2: \"told\": write \"write\", \"report\", \"send\" or \"print\"; for differences " \
                "\"distinguish\"\n    # It is told."]
    end
  end
end
