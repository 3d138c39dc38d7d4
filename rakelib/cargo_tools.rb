# frozen_string_literal: true

# Cargo subcommands that do not come with cargo. They are built into a folder of the checkout when first needed.
module CargoTools
  FOLDER = File.expand_path("tmp/tools")
  # The environment in which cargo finds them.
  ENVIRONMENT = { "PATH" => "#{FOLDER}/bin:#{ENV.fetch("PATH")}" }.freeze

  # @param command [String] "deny" for cargo-deny
  def self.install(command)
    return if system(ENVIRONMENT, "cargo", command, "--version", %i[out err] => File::NULL)

    tool = "cargo-#{command}"
    puts "#{tool} is missing: it is built and installed into #{FOLDER}, which takes minutes"
    system("cargo", "install", "--locked", tool, "--root", FOLDER) || abort("#{tool} cannot be had")
  end
end
