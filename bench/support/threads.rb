# frozen_string_literal: true

module Bench
  # The threads of this process, as the kernel counts them.
  module Threads
    # One thread.
    class Task
      attr_reader :id

      # @param id [Integer]
      def initialize(id)
        @id = id
        @folder = "/proc/self/task/#{id}"
      end

      def name = File.read("#{@folder}/comm").chomp

      # @return [Integer] how often it was switched off a core, voluntarily or not
      def switches = File.read("#{@folder}/status").scan(/voluntary_ctxt_switches:\s+(\d+)/).flatten.sum(&:to_i)

      # @return [Integer] nanoseconds on a core
      def busy = File.read("#{@folder}/schedstat").to_i
    end

    class << self
      def all = Dir.children("/proc/self/task").map { |id| Task.new(id.to_i) }

      # All but the main one.
      def others = all.reject { |task| task.id == Process.pid }

      # The gem's timer thread. Its reactor has the same name, but is a Ruby thread.
      def timer
        rubys = Thread.list.map(&:native_thread_id)
        all.find { |task| task.name == "online_manager" && !rubys.include?(task.id) }
      end
    end
  end
end
