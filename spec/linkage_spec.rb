# frozen_string_literal: true

require "tmpdir"
require_relative "../rakelib/native/linkage"
require_relative "../rakelib/native/portable"

# What `rake gem:native` checks of each extension of a release: it asks objdump, which shows glibc's versions on Linux.
if Native::Portable.target
  RSpec.describe Native::Linkage do
    around { |example| Dir.mktmpdir { |folder| example.run if (@folder = folder) } }

    # @param code [String] C
    # @return [Native::Linkage] of a library that consists of it
    def linkage(code, *options, name: "some")
      File.write("#{@folder}/#{name}.c", code)
      arguments = ["-shared", "-fPIC", "-o", "#{@folder}/lib#{name}.so", "#{@folder}/#{name}.c", *options]
      process = command("cc", *arguments)
      raise process.stderr unless process.success?

      described_class.new("#{@folder}/lib#{name}.so")
    end

    it "finds that an extension which is linked the ordinary way needs this machine's glibc" do
      extension = described_class.new(OnlineManager::Extension.path)

      expect(extension.findings).to include(match(/\Aneeds GLIBC_2\.\d+, for .*\bpthread_create\b/))
      expect(Gem::Version.new(extension.glibc)).to be > Gem::Version.new(described_class::GLIBC)
    end

    it "finds nothing in a library that needs old functions of libc, and functions of Ruby" do
      some = linkage(<<~C)
        int rb_gc_enable(void);
        int puts(const char *);
        int f(void) { return puts("") + rb_gc_enable(); }
      C

      expect(some.findings).to be_empty
      expect(some.findings(ruby: described_class.ruby)).to be_empty
      expect(Gem::Version.new(some.glibc)).to be <= Gem::Version.new(described_class::GLIBC)
    end

    it "finds a function that the running Ruby lacks" do
      some = linkage("int rb_no_such_function(void); int f(void) { return rb_no_such_function(); }")

      expect(some.findings).to be_empty
      expect(some.findings(ruby: described_class.ruby))
        .to eq ["needs rb_no_such_function, which neither Ruby nor libc has"]
    end

    it "finds a function that nothing has, and none that may be missing" do
      some = linkage(<<~C)
        int foreign(void);
        __attribute__((weak)) int optional(void);
        int f(void) { return foreign() + (optional ? optional() : 0); }
      C

      expect(some.findings).to eq ["needs foreign, which neither Ruby nor libc has"]
    end

    it "finds a library that not every system has" do
      linkage("int other(void) { return 1; }", name: "other")
      some = linkage("int other(void); int f(void) { return other(); }", "-L#{@folder}", "-lother")

      expect(some.findings).to include("needs the library libother.so")
    end

    # GLIBC_ABI_DT_RELR belongs to no function, and only glibc 2.36 and newer read such a file.
    it "finds a newer format of the file" do
      code = "int puts(const char *); static int f(void) { return puts(\"\"); } int (*pointer)(void) = f;"
      some = linkage(code, "-Wl,-z,pack-relative-relocs")

      expect(some.findings).to eq ["needs GLIBC_ABI_DT_RELR, for the file"]
    end

    it "says so when a file is no library" do
      File.write("#{@folder}/text", "text")

      expect { described_class.new("#{@folder}/text").findings }.to raise_error(/objdump failed on .*text/)
    end
  end
end
