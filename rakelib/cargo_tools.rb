# frozen_string_literal: true

# Commands of cargo's that do not come with it, built into a folder of the checkout when they are first needed.
module CargoTools
  FOLDER = File.expand_path("tmp/tools")
  # In which they are found.
  ENVIRONMENT = { "PATH" => "#{FOLDER}/bin:#{ENV.fetch("PATH")}" }.freeze

  # @param command [String] "deny" for cargo-deny
  def self.install(command)
    return if system(ENVIRONMENT, "cargo", command, "--version", %i[out err] => File::NULL)

    tool = "cargo-#{command}"
    puts "#{tool} is missing: it is built and installed into #{FOLDER}, which takes minutes"
    system("cargo", "install", "--locked", tool, "--root", FOLDER) || abort("#{tool} cannot be had")
  end
end
