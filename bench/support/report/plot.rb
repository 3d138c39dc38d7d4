# frozen_string_literal: true

require "fileutils"

module Bench
  # Curves over the number of users, with logarithmic axes and one panel for each kind of ids. Drawn by gnuplot.
  class Plot
    # Keyed by the first word of a curve's name, so that a contender has the same color in all plots.
    COLORS = {
      "OnlineManager" => "#d1242f", "an empty" => "#8c959f", "`hash[id]" => "#0969da", "Hash" => "#8250df",
      "an EventMachine" => "#bf8700", "Redis" => "#1a7f37", "SQLite" => "#57606a", "PostgreSQL" => "#24292f"
    }.freeze
    OURS = "OnlineManager"
    private_constant :COLORS, :OURS

    # @param path [String] the SVG file
    # @param title [String]
    # @param y_format [String] gnuplot's format of the values
    # @param panels [Hash{String => Hash{String => Hash{Integer => Numeric}}}] title → name → users → value; values that
    #   are not above 0 are left out (a trial run is too small to measure bytes)
    def initialize(path, title, y_format, panels)
      @path = path
      @title = title
      @y_format = y_format
      @panels = panels.transform_values do |curves|
        curves.transform_values { |points| points.select { |_, value| value.positive? } }
      end
    end

    def draw
      FileUtils.mkdir_p(File.dirname(@path))
      IO.popen(["gnuplot"], "w") { |gnuplot| gnuplot.write(script) }
      raise "gnuplot failed" unless Process.last_status.success?
    end

    private

    def script
      <<~GNUPLOT
        set terminal svg size 960,420 dynamic enhanced font "Helvetica,13" background "#ffffff"
        set output "#{@path}"
        set multiplot layout 1,#{@panels.size} title "#{@title}" font ",16" margins 0.07,0.74,0.14,0.83 spacing 0.06
        set logscale xy
        set grid ytics lc rgb "#d8dee4" lw 1
        set border 3 lc rgb "#57606a"
        set tics nomirror textcolor rgb "#57606a" scale 0.5
        set xlabel "users" textcolor rgb "#57606a" offset 0,0.5
        set format x "%.0s%c"
        set format y "#{@y_format}"
        set xrange [#{sizes.min}:#{sizes.max}]
        set yrange [#{decade(:floor)}:#{decade(:ceil)}]
        set key at screen 0.765,0.83 left top Left reverse samplen 1.5 spacing 1.4 font ",12"
        #{@panels.map.with_index { |(title, curves), index| panel(title, curves, index) }.join("\n")}
        unset multiplot
      GNUPLOT
    end

    # The key lists the curves in the order of their right ends. Only one panel shows it.
    def panel(title, curves, index)
      curves = curves.reject { |_, points| points.empty? }.sort_by { |_, points| -points.max.last }
      <<~GNUPLOT
        #{curves.map.with_index { |(_, points), number| "$curve#{index}_#{number} << END\n#{rows(points)}\nEND" }.join("\n")}
        set title "#{title}" font ",14"
        plot #{curves.map.with_index { |(name, _), number| curve(name, index, number) }.join(", ")}
        unset key
        set format y ""
      GNUPLOT
    end

    def curve(name, index, number)
      width, size = name == OURS ? [4, 0.7] : [2, 0.45]
      color = COLORS.find { |start, _| name.start_with?(start) }.last
      "$curve#{index}_#{number} using 1:2 with linespoints linewidth #{width} pointtype 7 pointsize #{size} " \
        "linecolor rgb \"#{color}\" title \"#{name.delete("`")}\""
    end

    def rows(points) = points.sort.map { |users, value| "#{users} #{value}" }.join("\n")

    def sizes = @panels.values.flat_map(&:values).flat_map(&:keys)

    def values = @panels.values.flat_map(&:values).flat_map(&:values)

    def decade(direction)
      exponent = Math.log10(direction == :floor ? values.min : values.max).public_send(direction)
      10.0**exponent
    end
  end
end
