# frozen_string_literal: true

namespace :gem do
  # The specs build it with the profile dev, which takes seconds.
  profile = ENV.fetch("PROFILE", "release")
  folder = "tmp/native/#{profile}"
  build_cache = lambda do
    require_relative "native/build_cache"
    Native::BuildCache.new(folder)
  end

  # The glibc version that an extension needs: the building machine's, or an older one.
  libc = lambda do |extension|
    symbols = IO.popen(["objdump", "--dynamic-syms", extension], err: File::NULL, &:read)
    symbols.scan(/GLIBC_([\d.]+)/).flatten.max_by { |version| Gem::Version.new(version) }
  rescue Errno::ENOENT
    nil
  end

  namespace :native do
    desc "Build the extension for this Ruby, and keep it for gem:native"
    task :extension do
      build_extension_into("#{folder}/build", { "RB_SYS_CARGO_PROFILE" => profile })
      build_cache.call.store("#{folder}/build/lib/online_manager/online_manager.#{RbConfig::CONFIG["DLEXT"]}")
    end
  end

  desc "Build the gem for this platform, with an extension for this Ruby and for each Ruby of `rake matrix`"
  task native: "native:extension" do
    require_relative "native/package"
    extensions = build_cache.call.extensions
    path = Native::Package.new(Gem::Specification.load("online_manager.gemspec"), extensions).build(folder)
    if profile == "release"
      mkdir_p "pkg", verbose: false
      path = "pkg/#{File.basename(path)}".tap { |place| cp path, place, verbose: false }
    end

    puts path
    extensions.each do |version, extension|
      glibc = libc.call(extension)
      puts "  Ruby #{version}#{", glibc #{glibc} or newer" if glibc}"
    end
    build_cache.call.outdated.each { |version| puts "  not Ruby #{version}: that one is older than the sources" }
  end
end
