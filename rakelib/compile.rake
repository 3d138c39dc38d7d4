# frozen_string_literal: true

require "rb_sys/extensiontask"

# What the specs load is built as clippy and the cargo tests build theirs (same folder, profile, flags, environment), so
# that no crate is compiled twice. `rake compile:release` builds what `gem install` would.
ENV["RB_SYS_CARGO_PROFILE"] ||= "dev"
ENV["RB_SYS_GLOBAL_RUSTFLAGS"] ||= "" # --cfg=rb_sys_gem, which only matters to who links libruby
ENV["ONLINE_MANAGER_SHARED_TARGET"] ||= "1" # see extconf.rb

RbSys::ExtensionTask.new("online_manager") do |extension|
  extension.lib_dir = "lib/online_manager"
  extension.extra_options = [] # or `rake --trace` would become `cargo rustc --trace`

  # Cargo is asked each time. But make goes by dates, and would keep the copy of what another profile has built, where
  # that is newer.
  task "compile:forget" do
    rm_f FileList["tmp/*/online_manager/*/online_manager.{so,bundle}"]
  end
  file extension.extconf => "compile:forget"
end
