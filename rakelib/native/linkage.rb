# frozen_string_literal: true

require "open3"
require "rbconfig"

module Native
  # What a compiled extension needs of the Linux that loads it, as objdump shows it.
  class Linkage
    # CentOS 7 has this version. Debian, Ubuntu, Fedora and RHEL have newer ones.
    GLIBC = "2.17"

    # The libraries that come with every glibc, and gcc's, through which Rust unwinds its stack.
    LIBRARIES = /\A(?:lib(?:c|m|pthread|dl|rt|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+)\z/

    # What the names begin with that an extension uses of Ruby.
    RUBY_NAME = /\Arb_/

    # The library, or the program, that has the running Ruby's functions.
    def self.ruby
      config = RbConfig::CONFIG
      folders = config.values_at("libdir", "archlibdir").compact
      folders.map { |folder| "#{folder}/#{config["LIBRUBY_SO"]}" }.find { |path| File.file?(path) } || RbConfig.ruby
    end

    # @param path [String] an extension or a library
    def initialize(path)
      @path = path
    end

    # @param ruby [String, nil] the path of {.ruby} if the extension is for the running Ruby; otherwise Ruby's functions
    #   are recognized by their names
    # @return [Array<String>] what not every Linux has; empty for a portable extension
    def findings(ruby: nil)
      provided = ruby && self.class.new(ruby).provided
      foreign = unversioned.reject { |name| provided ? provided.include?(name) : name.match?(RUBY_NAME) }
      [
        *newer.map { |version, names| "needs #{version}, for #{names.sort.join(", ")}" },
        *libraries.grep_v(LIBRARIES).map { |name| "needs the library #{name}" },
        *foreign.map { |name| "needs #{name}, which neither Ruby nor libc has" }
      ]
    end

    # @return [String, nil] the glibc that it needs, such as "2.17"
    def glibc
      versions = versioned.keys.filter_map { |version| version[/\AGLIBC_([\d.]+)\z/, 1] }
      versions.max_by { |version| Gem::Version.new(version) }
    end

    # @return [Array<String>] the names that it provides
    def provided
      dynamic_symbols.grep_v(/\*UND\*/).map { |line| line[/\S+\z/] }
    end

    private

    # Symbols that the extension gets from elsewhere. A weak one may be missing; without that, it would not be loaded.
    def undefined = dynamic_symbols.grep(/\*UND\*/)

    def unversioned = undefined.grep_v(/\([^)]+\)\s+\S+\z/).grep_v(/\A\h+\s+w/).map { |line| line[/\S+\z/] }

    # @return [Hash{String => Array<String>}] names by version; a version may belong to the file's format
    def versioned
      used = undefined.filter_map { |line| line.match(/\((\S+)\)\s+(\S+)\z/)&.captures }
      names = used.group_by(&:first).transform_values { |pairs| pairs.map(&:last) }
      versions = headers.scan(/^\s+0x\h+ 0x\h+ \d+ (\S+)$/).flatten
      versions.to_h { |version| [version, names.fetch(version, ["the file"])] }
    end

    def newer
      versioned.select do |version, _|
        number = version[/\AGLIBC_(.*)\z/, 1]
        number && !(number.match?(/\A[\d.]+\z/) && Gem::Version.new(number) <= Gem::Version.new(GLIBC))
      end
    end

    def libraries = headers.scan(/^\s+NEEDED\s+(\S+)$/).flatten

    def headers = @headers ||= objdump("--private-headers")

    def dynamic_symbols = @dynamic_symbols ||= objdump("--dynamic-syms").lines(chomp: true).grep(/\A\h{8,} /)

    def objdump(option)
      output, errors, status = Open3.capture3({ "LC_ALL" => "C" }, "objdump", option, @path)
      raise "objdump failed on #{@path}: #{errors}" unless status.success?

      output
    end
  end
end
