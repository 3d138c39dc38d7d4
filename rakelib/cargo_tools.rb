# frozen_string_literal: true

# Cargo subcommands that do not come with cargo. They are built into a folder of the checkout when first needed.
module CargoTools
  # Another Debian of the matrix gets the folder of the checkout that it is a copy of.
  FOLDER = File.expand_path(ENV.fetch("TOOLS", "tmp/tools"))
  # The environment in which cargo finds them.
  ENVIRONMENT = { "PATH" => "#{FOLDER}/bin:#{ENV.fetch("PATH")}" }.freeze

  class << self
    # @param command [String] "deny" for cargo-deny
    # @param version [String, nil] nil if any version will do
    def install(command, version: nil)
      return if installed?(command, version)

      tool = "cargo-#{command}"
      puts "#{tool} #{version} is missing: it is built and installed into #{FOLDER}, which takes minutes".squeeze(" ")
      wanted = version ? ["--version", version] : []
      system("cargo", "install", "--locked", tool, *wanted, "--root", FOLDER) || abort("#{tool} cannot be had")
    end

    private

    # Not every subcommand knows the option, and a program may know it only when it is called by its own name.
    def installed?(command, version)
      return system(ENVIRONMENT, "cargo", command, "--version", %i[out err] => File::NULL) unless version

      IO.popen([ENVIRONMENT, "cargo-#{command}", "--version"], &:read).split.last == version
    rescue Errno::ENOENT
      false
    end
  end
end
