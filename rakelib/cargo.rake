# frozen_string_literal: true

namespace :cargo do
  # The benchmarks are their own workspace, see its Cargo.toml.
  benches = %w[--manifest-path ext/tracker/benches/Cargo.toml]
  target = ENV.fetch("CARGO_TARGET_DIR", "target")

  desc "Check the format of the Rust code"
  task :fmt do
    sh "cargo", "fmt", "--all", "--check"
    sh "cargo", "fmt", *benches, "--check"
  end

  desc "Lint the Rust code"
  task :clippy do
    sh "cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"
    sh "cargo", "clippy", "--locked", *benches, "--target-dir", target, "--all-targets", "--", "--deny", "warnings"
  end

  desc "Check the Rust documentation"
  task :doc do
    sh({ "RUSTDOCFLAGS" => "--deny warnings" },
       "cargo", "doc", "--locked", "--workspace", "--no-deps", "--document-private-items")
  end

  # Excludes the extension itself: it links against a running Ruby, so the specs test it. The other crates need no Ruby.
  desc "Run the Rust tests"
  task :test do
    sh "cargo", "test", "--locked", "--workspace", "--exclude", "online_manager"
    sh "cargo", "test", "--locked", "--package", "online_manager_tracker", "--features", "shuttle",
       "--test", "interleavings"
  end
end
