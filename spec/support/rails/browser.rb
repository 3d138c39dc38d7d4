# frozen_string_literal: true

require "tmpdir"
require "fileutils"

# A Chromium without a window, with a profile and so with cookies of its own.
#
# Its chromedriver leads a process group which the whole of Chromium stays in. It is ended, and suspended, as that.
class Browser
  FLAGS = %w[--headless=new --no-sandbox --disable-gpu --disable-breakpad].freeze
  # With these chromedriver switches off what a browser does to the pages in its background.
  INDULGENT = %w[disable-background-timer-throttling disable-backgrounding-occluded-windows].freeze
  # The timers of a page that is hidden for a second, instead of for five minutes, fire once a minute.
  THROTTLING = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"

  # @return [String, nil] why there can be none, if so
  def self.missing
    programs = %w[chromium chromedriver].reject do |name|
      ENV.fetch("PATH").split(File::PATH_SEPARATOR).any? { |folder| File.executable?(File.join(folder, name)) }
    end
    "not installed: #{programs.join(", ")} (apt install chromium chromium-driver)" if programs.any?
  end

  # @param flags [Array<String>] for Chromium
  def initialize(*flags)
    require "selenium-webdriver"
    @profile = Dir.mktmpdir("chromium")
    @chromedriver = RubyProcess.new("chromedriver", "--port=0")
    port = @chromedriver.wait_for(/started successfully on port (\d+)/)[1]
    options = Selenium::WebDriver::Chrome::Options.new(
      args: [*FLAGS, "--user-data-dir=#{@profile}", *flags], exclude_switches: INDULGENT
    )
    @driver = Selenium::WebDriver.for(:remote, url: "http://127.0.0.1:#{port}", capabilities: options)
  rescue StandardError
    kill
    raise
  end

  # Opens a page in the present tab.
  def visit(url) = @driver.get(url)

  def reload = @driver.navigate.refresh

  # @return [Object] what the JavaScript expression is in the present page
  def evaluate(expression) = @driver.execute_script("return (#{expression})")

  # Runs JavaScript statements in the present page.
  def run(script) = @driver.execute_script(script)

  # Forgets who is logged in to the site of the present page.
  def forget = @driver.manage.delete_all_cookies

  # @return [String] what the present page shows
  def text = @driver.find_element(css: "body").text

  # Fills in a form's field and sends the form.
  def fill_in(name, value)
    field = @driver.find_element(name:)
    field.clear
    field.send_keys(value)
    field.submit
  end

  # Opens another tab in front of the present one, which is hidden from then on.
  #
  # @return [String] what {#show} takes
  def open_tab(url = "about:blank")
    @driver.switch_to.new_window(:tab)
    visit(url)
    @driver.window_handle
  end

  # @return [String] the present tab, for {#show}
  def tab = @driver.window_handle

  # Brings a tab to the front.
  def show(tab) = @driver.switch_to.window(tab)

  # Closes a tab that is not in front.
  def close_tab(tab) = @driver.execute_cdp("Target.closeTarget", targetId: tab)

  # Stops all of its processes, which keep their connections and send nothing.
  def suspend = Process.kill(:STOP, -@chromedriver.pid)

  def resume = Process.kill(:CONT, -@chromedriver.pid)

  # Closes all tabs and ends, as a user has it do.
  def quit
    resume
    @driver.quit
  rescue StandardError # it has ended, or hangs
    nil
  ensure
    kill
  end

  # Ends it at once.
  def kill
    @chromedriver&.kill
    FileUtils.rm_rf(@profile)
  end

  # What specs call. The browsers of an example end with it, those of a group (`before(:context)`) with the group.
  module Helper
    # @return [Browser]
    def browser(*flags)
      (@browsers ||= []) << Browser.new(*flags)
      @browsers.last
    end

    def quit_browsers
      @browsers&.each(&:quit)
    end
  end
end

RSpec.configure do |config|
  config.include Browser::Helper, :browser
  config.before(:context, :browser) { skip(Browser.missing) if Browser.missing }
end
