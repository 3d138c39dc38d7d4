# frozen_string_literal: true

module Stores
  # The log of an application's callbacks: one line per event, written at once and synced to disk, so that lines of
  # several processes do not mix and none is lost with its process.
  #
  # Besides `online` and `offline` it has the lines that the judge needs: a process was `killed` or `stopped`, the store
  # was `lost`, or `restored` from an older copy. Lines of other kinds are for the specs.
  #
  # Also loaded into child processes and by the judge, so it requires nothing.
  class Log
    # The id is a {.token}, or nil in a line about no user. The time is in seconds on the monotonic clock.
    Line = Struct.new(:kind, :id, :version, :pid, :at, :detail) do
      def transition? = %i[online offline].include?(kind)
      def to_s = [kind, id || "-", version || "-", pid, at.round(3), detail].join("\t")
    end

    PATTERN = /\A(\w+)\t([^\t]+)\t(-|\d+)\t(\d+)\t([\d.]+)\t([^\t]*)\z/

    # @return [String] a text without tabs and newlines, different for each id
    def self.token(id)
      case id
      when Symbol then ":#{token(id.name)}"
      when String then "#{id.dump}#{" #{id.encoding}" unless id.ascii_only? || id.encoding == Encoding::UTF_8}"
      else id.inspect
      end
    end

    # @return [Line, nil] nil if the text is no line
    def self.parse(line)
      kind, id, version, pid, at, detail = PATTERN.match(line)&.captures
      kind && Line.new(kind.to_sym, (id unless id == "-"), (Integer(version) unless version == "-"), Integer(pid),
                       Float(at), detail)
    end

    attr_reader :path

    def initialize(path)
      @path = path
      @mutex = Mutex.new
      @lines = []
      @states = {}
      @offset = 0
    end

    # @param kind [Symbol]
    # @param token [String, nil] the token of an id
    # @yield after the write and before the sync
    def append(kind, token = nil, version: nil, pid: Process.pid, detail: nil)
      now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      detail = detail.inspect[1...-1] if detail.is_a?(String)
      File.open(@path, File::WRONLY | File::APPEND | File::CREAT) do |file|
        file.syswrite("#{Line.new(kind, token, version, pid, now, detail)}\n")
        yield if block_given?
        file.fsync
      end
    end

    # @return [Array<Line>] all lines, or the lines of some kinds
    def lines(*kinds)
      read { kinds.empty? ? @lines.dup : @lines.select { |line| kinds.include?(line.kind) } }
    end

    # @return [Hash{String => Symbol}] by token, each user's transition with the highest version
    def states = read { @states.transform_values(&:kind) }

    private

    # Reads the new lines, and yields.
    def read
      @mutex.synchronize do
        whole = File.size?(@path).to_i > @offset ? File.read(@path, nil, @offset)[/.*\n/m].to_s : ""
        @offset += whole.bytesize
        whole.each_line(chomp: true) { |text| add(Log.parse(text) || raise("#{@path} has a bad line: #{text}")) }
        yield
      end
    end

    def add(line)
      @lines << line
      return unless line.transition?

      latest = @states[line.id]
      @states[line.id] = line if latest.nil? || line.version > latest.version
    end
  end
end
