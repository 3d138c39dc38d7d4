# frozen_string_literal: true

# What the extension is built with, and how to come by it. We look for it before the build: what a crate's build script
# says of it after minutes is hard to read, and without cargo rb_sys would download one.
module Prerequisites
  MANIFEST = File.expand_path("../../Cargo.toml", __dir__)

  # Where the crate clang-sys, which loads libclang, looks for it on Linux when LIBCLANG_PATH does not say.
  LIBCLANG_FOLDERS = %w[/usr/local/llvm*/lib* /usr/local/lib*{,/*,/*/*} /usr/lib*{,/*,/*/*}].freeze
  LIBCLANG_FILES = "libclang{.so,.so.*,-*.so,-*.so.*,.dylib}"
  # Another library that has such a name.
  NOT_LIBCLANG = /-cpp\./

  class << self
    # @return [String, nil] what is missing, and how to install it
    def missing = missing_rust || missing_libclang

    private

    def missing_rust
      wanted = File.read(MANIFEST)[/^rust-version = "(.*)"/, 1]
      cargo = ENV.fetch("CARGO", "cargo")
      found = version(cargo)
      return if found && Gem::Version.new(found) >= Gem::Version.new(wanted)

      <<~TEXT
        online_manager is compiled with Rust #{wanted} or newer, and #{found ? "#{cargo} is #{found}" : "no #{cargo} runs here"}.
        Install it by rustup: https://rustup.rs says how, on Debian 13 it is `apt install rustup && rustup default stable`.
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
        online_manager is compiled with the help of libclang, and there is none#{place}.
        Install it: `apt install libclang-dev` on Debian and Ubuntu, `dnf install clang-devel` on Fedora,
        `apk add clang-dev` on Alpine, `brew install llvm` on macOS. Where it is in no usual place, let LIBCLANG_PATH name
        its folder.
      TEXT
    end

    # Only where it is sure that clang-sys would not find it either.
    def libclang?
      return true if libclang_gem?

      path = ENV.fetch("LIBCLANG_PATH", nil)
      return libclang_in?(path) || (File.file?(path) && libclang_in?(File.dirname(path))) if path
      return true unless RbConfig::CONFIG["host_os"].start_with?("linux")

      [*LIBCLANG_FOLDERS, *folders_of_environment].any? { |folder| libclang_in?(folder) }
    end

    def libclang_in?(folder) = Dir["#{folder}/#{LIBCLANG_FILES}"].grep_v(NOT_LIBCLANG).any?

    # Which rb_sys prefers.
    def libclang_gem? = Gem::Specification.find_all_by_name("libclang").any?

    def folders_of_environment
      llvm = `#{ENV.fetch("LLVM_CONFIG_PATH", "llvm-config")} --prefix 2>/dev/null`.chomp
      listed = ENV.values_at("LD_LIBRARY_PATH", "LIBRARY_PATH").compact.flat_map { |list| list.split(":") }
      llvm.empty? ? listed : [*listed, "#{llvm}/lib", "#{llvm}/lib64"]
    end
  end
end
