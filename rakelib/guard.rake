# frozen_string_literal: true

namespace :guard do
  instructions = lambda do
    require_relative "../bench/guard/instructions"
    Instructions.new
  end

  desc "Check that a heartbeat takes no more instructions than the committed figure"
  task instructions: "bench:build" do
    guard = instructions.call
    if guard.figures
      counts = guard.count
      counts.each { |kind, count| puts "#{kind}: #{count} instructions, the figure is #{guard.figures[kind]}" }
      unless guard.excessive(counts).empty?
        abort "A heartbeat takes over #{(Instructions::TOLERANCE * 100).round} % more than the figure. " \
              "If that is meant to be, `rake guard:update` makes it the figure."
      end
    else
      puts "bench/guard/instructions.yml has no figures for Ruby #{guard.ruby}: NOT CHECKED"
    end
  end

  desc "Measure the instructions of a heartbeat, and write them as the figure"
  task update: "bench:build" do
    guard = instructions.call
    counts = guard.count
    guard.update(counts)
    puts "bench/guard/instructions.yml says for Ruby #{guard.ruby}: #{counts}"
  end
end
