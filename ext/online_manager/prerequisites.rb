# frozen_string_literal: true

# Finds out, before the build, whether Rust and libclang are there. Otherwise a build script fails after minutes with a
# message that is hard to read, or rb_sys downloads a cargo.
module Prerequisites
  MANIFEST = File.expand_path("../../Cargo.toml", __dir__)

  # The folders in which the crate clang-sys looks for libclang on Linux, unless LIBCLANG_PATH is set.
  LIBCLANG_FOLDERS = %w[/usr/local/llvm*/lib* /usr/local/lib*{,/*,/*/*} /usr/lib*{,/*,/*/*}].freeze
  LIBCLANG_FILES = "libclang{.so,.so.*,-*.so,-*.so.*,.dylib}"
  # libclang-cpp has a similar name, but is another library.
  NOT_LIBCLANG = /-cpp\./

  class << self
    # @return [String, nil] a message: what is missing, and how to install it
    def missing = missing_rust || missing_libclang

    private

    def missing_rust
      wanted = File.read(MANIFEST)[/^rust-version = "(.*)"/, 1]
      cargo = ENV.fetch("CARGO", "cargo")
      found = version(cargo)
      return if found && Gem::Version.new(found) >= Gem::Version.new(wanted)

      <<~TEXT
        online_manager is compiled with Rust #{wanted} or newer, and #{found ? "#{cargo} is #{found}" : "#{cargo} did not run"}.
        Install it with rustup, see https://rustup.rs. On Debian 13: `apt install rustup && rustup default stable`.
        (The package `cargo` of Debian 12 and 13 is too old.)
      TEXT
    end

    def version(cargo)
      IO.popen([cargo, "--version"], err: File::NULL, &:read)[/\Acargo (\d+(?:\.\d+)+)/, 1]
    rescue Errno::ENOENT
      nil
    end

    def missing_libclang
      return if libclang?

      place = ENV.key?("LIBCLANG_PATH") ? " in LIBCLANG_PATH (#{ENV["LIBCLANG_PATH"]})" : ""
      <<~TEXT
        online_manager is compiled with libclang, and none was found#{place}.
        Install it: `apt install libclang-dev` on Debian and Ubuntu, `dnf install clang-devel` on Fedora,
        `apk add clang-dev` on Alpine, `brew install llvm` on macOS. If it is in an unusual place, set LIBCLANG_PATH to its
        folder.
      TEXT
    end

    # Returns false only if clang-sys would certainly not find libclang either.
    def libclang?
      return true if libclang_gem?

      path = ENV.fetch("LIBCLANG_PATH", nil)
      return libclang_in?(path) || (File.file?(path) && libclang_in?(File.dirname(path))) if path
      return true unless RbConfig::CONFIG["host_os"].start_with?("linux")

      [*LIBCLANG_FOLDERS, *folders_of_environment].any? { |folder| libclang_in?(folder) }
    end

    def libclang_in?(folder) = Dir["#{folder}/#{LIBCLANG_FILES}"].grep_v(NOT_LIBCLANG).any?

    # rb_sys prefers the libclang of this gem to any other.
    def libclang_gem? = Gem::Specification.find_all_by_name("libclang").any?

    def folders_of_environment
      llvm = `#{ENV.fetch("LLVM_CONFIG_PATH", "llvm-config")} --prefix 2>/dev/null`.chomp
      listed = ENV.values_at("LD_LIBRARY_PATH", "LIBRARY_PATH").compact.flat_map { |list| list.split(":") }
      llvm.empty? ? listed : [*listed, "#{llvm}/lib", "#{llvm}/lib64"]
    end
  end
end
