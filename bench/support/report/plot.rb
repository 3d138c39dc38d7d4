# frozen_string_literal: true

require "fileutils"

module Bench
  # Curves over the number of users, both axes logarithmic, one panel for each kind of ids. Drawn by gnuplot.
  class Plot
    # Ours first, and thick.
    COLORS = %w[#d1242f #0969da #6639ba #bf8700 #1a7f37 #8250df #57606a #24292f].freeze

    # @param path [String] of the SVG
    # @param title [String]
    # @param unit [String]
    # @param panels [Hash{String => Hash{String => Hash{Integer => Numeric}}}] title → name → users → value
    def initialize(path, title, unit, panels)
      @path = path
      @title = title
      @unit = unit
      @panels = panels
    end

    def draw
      FileUtils.mkdir_p(File.dirname(@path))
      IO.popen(["gnuplot"], "w") { |gnuplot| gnuplot.write(script) }
      raise "gnuplot failed" unless Process.last_status.success?
    end

    private

    def script
      <<~GNUPLOT
        set terminal svg size 960,460 dynamic enhanced font "Helvetica,13" background "#ffffff"
        set output "#{@path}"
        set multiplot layout 1,#{@panels.size} title "#{@title}" font ",16" margins 0.075,0.985,0.28,0.85 spacing 0.05
        set logscale xy
        set grid ytics lc rgb "#d8dee4" lw 1
        set border 3 lc rgb "#57606a"
        set tics nomirror textcolor rgb "#57606a" scale 0.5
        set xlabel "users" textcolor rgb "#57606a"
        set format x "%.0s%c"
        set xrange [#{sizes.min}:#{sizes.max}]
        set yrange [#{decade(:floor)}:#{decade(:ceil)}]
        #{@panels.map.with_index { |(title, curves), index| panel(title, curves, index) }.join("\n")}
        unset multiplot
      GNUPLOT
    end

    def panel(title, curves, index)
      blocks = curves.map.with_index { |(_, points), number| "$curve#{index}_#{number} << END\n#{rows(points)}\nEND" }
      <<~GNUPLOT
        #{blocks.join("\n")}
        set title "#{title}" font ",14"
        #{index.zero? ? "set ylabel \"#{@unit}\" textcolor rgb \"#57606a\"\nset format y \"#{y_format}\"" : "unset ylabel\nset format y \"\""}
        #{index.zero? ? "set key at screen 0.53,0.02 center bottom maxrows 2 samplen 2 width 1 font \",12\"" : "unset key"}
        plot #{curves.keys.map.with_index { |name, number| curve(name, index, number) }.join(", ")}
      GNUPLOT
    end

    def curve(name, index, number)
      width, size = number.zero? ? [4, 0.7] : [2, 0.45]
      "$curve#{index}_#{number} using 1:2 with linespoints linewidth #{width} pointtype 7 pointsize #{size} " \
        "linecolor rgb \"#{COLORS.fetch(number)}\" title \"#{name.delete("`").gsub("_", "\\\\\\_")}\""
    end

    def rows(points) = points.sort.map { |users, value| "#{users} #{value}" }.join("\n")

    def sizes = @panels.values.flat_map(&:values).flat_map(&:keys)

    def values = @panels.values.flat_map(&:values).flat_map(&:values)

    def decade(direction)
      10**Math.log10(direction == :floor ? values.min : values.max).public_send(direction)
    end

    def y_format = @unit == "ns" ? "%.0s %cs" : "%.0f"
  end
end
