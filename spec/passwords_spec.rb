# frozen_string_literal: true

require "online_manager/command"
require "stringio"

# A password that is anywhere in a store's URL, also in a malformed one, is in no text that the gem has made. More URLs,
# and the text of each, are in ext/store/src/redacted.rs.
RSpec.describe "A password" do
  config = Struct.new(:timeout) do
    def setup = nil
    def online(_) = nil
    def offline(_) = nil
  end

  urls = %w[
    SECRET SECRET: SECRET://h u:SECRET@h //u:SECRET@h :SECRET@h redis:SECRET redis:u:SECRET@h redis:/u:SECRET@h
    redis://u:SECRET redis://:SECRET redis://u:SECRET/0 redis://u:SECRET?db=1 redis://u:SECRET@ redis://u:SECRET@:1
    redis://SECRET@h redis://SECRET:@h redis://:SECRET@h redis://u:SECRET@h redis://u:SECRET@h:port
    redis://u:SECRET@h:99999
    redis://u:SECRET@h/foo redis://u:a@SECRET@h redis://u:a/SECRET@h redis://u:a?SECRET@h redis://u:a#SECRET@h
    redis://SECRET#a@h redis://SECRET/a@h redis://u:p@1/SECRET@h redis://h:SECRET redis://h/SECRET redis://h?SECRET
    redis://h?SECRET=1 redis://h?SECRET=1&SECRET=2 redis://h?pass=SECRET redis://h?PASS=SECRET redis://h?%70ass=SECRET
    redis://h?db=SECRET redis://h/SECRET?db=1 redis://h?user=SECRET redis://h?prefix={SECRET} redis://h#SECRET
    rediss://h?verify=SECRET rediss://h?ca_file=a@SECRET redis+unix:///s?pass=SECRET redis+unix:///s?pass=a#SECRET
    redis+unix:///s?pass=a&SECRET redis+unix:///s?pass=a&SECRET=b redis+unix:///s?pass=a@SECRET
    redis+unix:///s;pass=SECRET
    redis+unix:///u:SECRET@/s unix:///s?pass=SECRET%FF REDIS://u:SECRET@h http://u:SECRET@h mysql://SECRET@h
    sqlite:redis://u:SECRET@h sqlite:REDISS://SECRET@h sqlite:redis:u:SECRET@h sqlite://u:SECRET@h/x sqlite:u:SECRET@h
    sqlite:x.db?key=SECRET SQLITE:redis://u:SECRET@h
  ]

  # @return [Array<String>] everything that is said of a manager with such options, whether or not they are valid
  define_method(:texts_of) do |**options|
    manager = OnlineManager.new(config.new(60), **options)
    [manager.inspect, manager.stats.inspect, manager.instance_variable_get(:@store).inspect]
  rescue ArgumentError, TypeError => e
    [e.full_message(highlight: false), e.inspect]
  end

  # @return [String] what the command prints
  def command_says(*argv)
    out = StringIO.new
    OnlineManager::Command.new(input: StringIO.new, out:, err: out).run(argv)
    out.string
  end

  urls.each do |url|
    it "is not shown of #{url.inspect}" do
      stores = [url, url.to_sym, [url], ["redis://h", url], ["redis://h", url.to_sym], { url: }, " #{url}"]
      texts = stores.flat_map { |store| texts_of(store:) }
      expect(texts.grep(/SECRET/)).to be_empty
    end
  end

  it "is not shown when the URL is passed in place of something else" do
    texts = [%i[reactor redis://u:SECRET@h], %w[reactor redis://u:SECRET@h], [:namespace, ["redis://u:SECRET@h"]],
             [:namespace, "redis:u:SECRET@h\xFF"], [:"redis://u:SECRET@h", 1]].flat_map do |name, value|
      texts_of(name.to_sym => value)
    end
    begin
      OnlineManager.new(config.new(60)).seen(7, timeout: "redis://u:SECRET@h")
    rescue ArgumentError => e
      texts << e.message
    end
    expect(texts.size).to be > 8
    expect(texts.grep(/SECRET/)).to be_empty
  end

  [
    %w[redis://u:SECRET@h], %w[store redis:u:SECRET@h], %w[store u:SECRET@h], %w[store U1:SECRET@h],
    %w[store redis://u:SECRET], %w[store redis://u:SECRET@h/foo], %w[store a redis://u:SECRET@h],
    %w[store redis://h redis:u:SECRET@h], %w[store --cluster u:SECRET@h], %w[store --url=redis://u:SECRET@h],
    %w[store --redis://u:SECRET@h], %w[store --password=SECRET], %w[store --cluster=redis://u:SECRET@h],
    %w[store a --purge redis://u:SECRET@h -n b], ["store", "redis:u:SECRET@h\xFF"], %w[--purge redis://u:SECRET@h store]
  ].each do |argv|
    it "is not printed by `online_manager #{argv.join(" ").inspect}'" do
      said = command_says(*argv)
      expect(said).to start_with("online_manager: ")
      expect(said).not_to include("SECRET")
    end
  end
end
