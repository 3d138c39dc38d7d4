# frozen_string_literal: true

namespace :gem do
  # The specs build it with the profile dev, which takes seconds, and is linked as this machine does.
  profile = ENV.fetch("PROFILE", "release")
  folder = "tmp/native/#{profile}"
  build_cache = lambda do
    require_relative "native/build_cache"
    Native::BuildCache.new(folder)
  end

  # Whether the extensions are for other machines too. That is for glibc; elsewhere rb-sys-dock builds a release.
  portable = lambda do
    require_relative "native/portable"
    profile == "release" && !Native::Portable.target.nil?
  end

  demand_portable = lambda do |path, version, **options|
    findings = Native::Linkage.new(path).findings(**options)
    next if findings.empty?

    abort "The extension for Ruby #{version} (#{path}) would not load everywhere:\n  #{findings.join("\n  ")}"
  end

  build = lambda do
    if portable.call
      path = Native::Portable.new("#{folder}/zig").build
      demand_portable.call(path, RUBY_VERSION, ruby: Native::Linkage.ruby)
      next path
    end

    build_extension_into("#{folder}/build", { "RB_SYS_CARGO_PROFILE" => profile })
    "#{folder}/build/lib/online_manager/online_manager.#{RbConfig::CONFIG["DLEXT"]}"
  end

  namespace :native do
    # `rake matrix` installs them here, for all its places.
    desc "Install what links the extension for older machines: zig and cargo-zigbuild"
    task :tools do
      Native::Portable.install_tools if portable.call
    end

    desc "Build the extension for this Ruby, and keep it for gem:native"
    task :extension do
      build_cache.call.store(build.call)
    end

    desc "Check that the extensions of a gem for glibc load everywhere: gem:native:check[FILE]"
    task :check, [:file] do |_, arguments|
      require "rubygems/package"
      require_relative "native/linkage"
      require "tmpdir"
      Dir.mktmpdir do |unpacked|
        Gem::Package.new(arguments.fetch(:file)).extract_files(unpacked)
        paths = Dir["lib/online_manager/*/*.so", base: unpacked]
        abort "#{arguments[:file]} has no extension" if paths.empty?

        paths.each { |path| demand_portable.call(File.join(unpacked, path), path[/\d+\.\d+/]) }
        puts "#{paths.size} extension#{"s" if paths.size > 1} load with glibc #{Native::Linkage::GLIBC} or newer"
      end
    end

    # MATRIX_ROOT=… holds the other Debians.
    desc "Install the gem here and in the Debians of `rake matrix`, without a compiler: a heartbeat within 5 s"
    task :try do
      require_relative "native/trial"
      package = "pkg/#{Native::Package.new(Gem::Specification.load("online_manager.gemspec"), {}).file_name}"
      trials = Native::Trial.all(package, ENV.fetch("MATRIX_ROOT", "tmp/matrix")).each do |trial|
        puts trial.run
      end
      slow = trials.reject(&:quick?)
      abort "more than #{Native::Trial::LIMIT} s: #{slow.map(&:name).join(", ")}" unless slow.empty?
    end
  end

  desc "Build the gem for this platform, with an extension for this Ruby and for each Ruby of `rake matrix`"
  task native: "native:extension" do
    require_relative "native/package"
    extensions = build_cache.call.extensions
    extensions.each { |version, path| demand_portable.call(path, version) } if portable.call
    path = Native::Package.new(Gem::Specification.load("online_manager.gemspec"), extensions).build(folder)
    if profile == "release"
      mkdir_p "pkg", verbose: false
      path = "pkg/#{File.basename(path)}".tap { |place| cp path, place, verbose: false }
    end

    puts path
    extensions.each do |version, extension|
      glibc = Native::Linkage.new(extension).glibc if Native::Portable.target
      puts "  Ruby #{version}#{", glibc #{glibc} or newer" if glibc}"
    end
    build_cache.call.outdated.each { |version| puts "  not Ruby #{version}: that one is older than the sources" }
  end
end
