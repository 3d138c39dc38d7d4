# frozen_string_literal: true

require "tmpdir"
require "fileutils"

# A headless Chromium with its own profile, and so with its own cookies.
#
# Its chromedriver leads a process group that contains all of Chromium's processes. Signals go to that group.
class Browser
  FLAGS = %w[--headless=new --no-sandbox --disable-gpu --disable-breakpad].freeze
  # Switches of chromedriver that change how a browser treats background pages. They are removed.
  INDULGENT = %w[disable-background-timer-throttling disable-backgrounding-occluded-windows].freeze
  # Throttles the timers of a hidden page to once a minute after one second, instead of after five minutes.
  THROTTLING = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"

  # @return [String, nil] which programs are missing; nil if none is
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

  # @return [Object] the value of the JavaScript expression in the current page
  def evaluate(expression) = @driver.execute_script("return (#{expression})")

  # Runs JavaScript statements in the current page.
  def run(script) = @driver.execute_script(script)

  # Deletes all cookies, which logs the user out.
  def forget = @driver.manage.delete_all_cookies

  # @return [String] the text of the current page
  def text = @driver.find_element(css: "body").text

  # Fills in a form field and submits the form.
  def fill_in(name, value)
    field = @driver.find_element(name:)
    field.clear
    field.send_keys(value)
    field.submit
  end

  # Opens another tab in front of the current one, which is then hidden.
  #
  # @return [String] a handle for {#show}
  def open_tab(url = "about:blank")
    @driver.switch_to.new_window(:tab)
    visit(url)
    @driver.window_handle
  end

  # @return [String] the current tab, for {#show}
  def tab = @driver.window_handle

  # Brings a tab to the front.
  def show(tab) = @driver.switch_to.window(tab)

  # Closes a tab that is not in front.
  def close_tab(tab) = @driver.execute_cdp("Target.closeTarget", targetId: tab)

  # Stops all of its processes. They keep their connections and send nothing.
  def suspend = Process.kill(:STOP, -@chromedriver.pid)

  def resume = Process.kill(:CONT, -@chromedriver.pid)

  # Closes all tabs and ends, as a user would.
  def quit
    resume
    @driver.quit
  rescue StandardError # it has already ended, or hangs
    nil
  ensure
    kill
  end

  # Ends it at once.
  def kill
    @chromedriver&.kill
    FileUtils.rm_rf(@profile)
  end

  # Spec helpers. An example's browsers end with the example, those of a group (`before(:context)`) with the group.
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
