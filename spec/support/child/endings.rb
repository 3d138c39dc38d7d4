# frozen_string_literal: true

# Runs cells of the table in spec/support/endings.yml, each in a process of its own: forked from this one, so that Ruby
# and the gems are loaded once. Reads the cells from standard input, and prints what each of them did, as JSON.
#
# ARGV: the reactor.

require "json"
require "timeout"
require "online_manager"
require_relative "endings/cell"

REACTOR = ARGV.fetch(0).to_sym
require "eventmachine" if REACTOR == :eventmachine
require "async" if REACTOR == :fiber

# Cells that run at a time.
LANES = 2
# Seconds that a cell may take, on a busy machine too.
LIMIT = 10

# A process that runs a cell.
Running = Struct.new(:cell, :pid, :outputs, :deadline) do
  def open = outputs.each_key.reject(&:closed?)

  # Reads what it has printed.
  def read(io)
    outputs[io] << io.read_nonblock(65_536)
  rescue EOFError
    io.close
  end

  def finish(was_killed)
    _, status = Process.wait2(pid)
    stdout, stderr = outputs.values
    { stdout:, stderr:, exitstatus: status.exitstatus, termsig: status.termsig, hung: was_killed }
  end
end

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# @return [Running, nil] nil in the child
def start(cell)
  pipes = [IO.pipe, IO.pipe]
  if (pid = fork)
    pipes.each { |_, writer| writer.close }
    return Running.new(cell, pid, pipes.to_h { |reader, _| [reader, +""] }, now + LIMIT)
  end

  [$stdout, $stderr].zip(pipes) { |io, (_, writer)| io.reopen(writer) }
  pipes.flatten.each(&:close)
  $stdout.sync = true
  nil
end

cells = JSON.parse($stdin.read, symbolize_names: true)
outcomes = {}
running = []
mine = nil
until mine || (cells.empty? && running.empty?)
  while running.size < LANES && (cell = cells.shift)
    started = start(cell)
    break mine = cell unless started

    running << started
  end
  break if mine

  ready, = IO.select(running.flat_map(&:open), nil, nil, [running.map(&:deadline).min - now, 0].max)
  running.each { |child| (child.open & ready.to_a).each { |io| child.read(io) } }
  hung = running.select { |child| child.deadline <= now }
  hung.each { |child| Process.kill(:KILL, child.pid) }
  ended = running.select { |child| child.open.empty? } | hung
  ended.each { |child| outcomes[child.cell.fetch(:name)] = child.finish(hung.include?(child)) }
  running -= ended
end

# At the top level, so that a cell ends as a script does.
if mine
  cell = Cell.new(mine)
  mine.fetch(:plain) ? cell.run_plain : cell.run
else
  puts JSON.generate(outcomes)
end
