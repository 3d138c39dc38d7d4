# frozen_string_literal: true

require "fileutils"
require_relative "../cargo_tools"
require_relative "linkage"
require_relative "package"

module Native
  # Builds the extension for the running Ruby so that every glibc since {Linkage::GLIBC} loads it, wherever it is built:
  # zig is the linker and the C compiler, and it has the symbols of each glibc version.
  class Portable
    # `cargo zigbuild` passes on what cargo wants of a linker. Versions of it and of zig that were tried together.
    ZIGBUILD = "0.24.1"
    ZIG = "0.15.2"
    ZIG_FOLDER = "#{CargoTools::FOLDER}/ziglang-#{ZIG}".freeze
    ZIG_COMMAND = "#{ZIG_FOLDER}/ziglang/zig".freeze

    TARGETS = { "x86_64-linux" => "x86_64-unknown-linux-gnu", "aarch64-linux" => "aarch64-unknown-linux-gnu" }.freeze

    class << self
      # @return [String, nil] Rust's name for this machine's platform; nil where there is no glibc
      def target = TARGETS[Package.platform.to_s]

      # Installs zig and `cargo zigbuild` into the folder of {CargoTools}, if they are missing.
      def install_tools
        CargoTools.install("zigbuild", version: ZIGBUILD)
        return if zig?

        puts "zig #{ZIG} is missing: the Python package ziglang is installed into #{ZIG_FOLDER} (400 MB)"
        system("bin/setup", "--native", exception: true)
        # Always the whole package: pip would not complete a folder that an interrupted installation has left.
        FileUtils.rm_rf(ZIG_FOLDER)
        system("python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--target", ZIG_FOLDER, "ziglang==#{ZIG}")
        zig? || abort("zig cannot be had")
      end

      private

      def zig?
        IO.popen([ZIG_COMMAND, "version"], err: File::NULL, &:read).chomp == ZIG
      rescue Errno::ENOENT
        false
      end
    end

    # @param folder [String] for what zig and `cargo zigbuild` keep between builds
    def initialize(folder)
      @folder = File.expand_path(folder)
    end

    # @return [String] the extension's path
    def build
      self.class.install_tools
      # In the crate's folder, since zig would print relative paths of its header files in a folder above its own, and
      # bindgen reads them in another folder.
      system(environment, "cargo", "zigbuild", "--locked", "--release", "--lib",
             "--target", "#{self.class.target}.#{Linkage::GLIBC}", chdir: "ext/online_manager", exception: true)
      "#{ENV.fetch("CARGO_TARGET_DIR", "target")}/#{self.class.target}/release/libonline_manager.so"
    end

    private

    # The variables that rake compile sets for rb_sys's Makefile have no meaning here.
    def environment
      {
        **CargoTools::ENVIRONMENT,
        "RUBY" => RbConfig.ruby, # whose headers the crate rb-sys reads
        "CARGO_ZIGBUILD_ZIG_COMMAND" => ZIG_COMMAND,
        "CARGO_ZIGBUILD_CACHE_DIR" => @folder,
        "ZIG_GLOBAL_CACHE_DIR" => "#{@folder}/zig"
      }
    end
  end
end
