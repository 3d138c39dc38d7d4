# frozen_string_literal: true

require_relative "online_config"

module WebSocketDemo
  # The config of bin/demo --serve: the same WebSocket server, which also serves the page on its port.
  class PageConfig < OnlineConfig
    # em-websocket drops a request that is no WebSocket handshake. This class answers it first.
    class Connection < EM::WebSocket::Connection
      PAGE = File.read(File.join(__dir__, "page.html"))
      END_OF_HEADERS = "\r\n\r\n"
      LONGEST_REQUEST = 16 * 1024

      private_constant :END_OF_HEADERS, :LONGEST_REQUEST

      # em-websocket calls this with what arrives before the handshake is complete, perhaps in pieces.
      def dispatch(data)
        return super if @websocket

        @request = "#{@request}#{data}"
        return close_connection if @request.size > LONGEST_REQUEST
        return unless @request.include?(END_OF_HEADERS)
        return answer unless @request.match?(/^upgrade:\s*websocket/i)

        @websocket = true
        super(@request)
      end

      private

      def answer
        if @request.start_with?("GET / ")
          respond("200 OK", "text/html; charset=utf-8", PAGE)
        else
          respond("404 Not Found", "text/plain", "There is only the page at /.\n")
        end
      end

      def respond(status, type, body)
        send_data("HTTP/1.1 #{status}\r\nContent-Type: #{type}\r\nContent-Length: #{body.bytesize}\r\n" \
                  "Cache-Control: no-store\r\nConnection: close\r\n\r\n#{body}")
        close_connection_after_writing
      end
    end

    private

    def start_server(port, &) = EM.start_server(HOST, port, Connection, {}, &)
  end
end
