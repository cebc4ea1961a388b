# frozen_string_literal: true

# Speaks the Runtime API for the tests, in the shape of the AWS client: the names that the runtime's own files rely on are the
# client's, the rest is as small as it can be.

require "json"
require "net/http"

module AwsLambdaRIC
  VERSION = "0.0.1"

  # Loads the function and answers events until the process ends.
  class Bootstrap
    Context = Struct.new(:aws_request_id)

    def start
      @client = RapidClient.new(ENV.fetch("AWS_LAMBDA_RUNTIME_API"))
      file, *names = ENV.fetch("_HANDLER").split(".")
      load_function(file)
      loop { answer(names) }
    end

    private

    def load_function(file)
      $LOAD_PATH.unshift(Dir.pwd)
      require file
    rescue Exception => e
      @client.post("init/error", errorType: "Init<#{e.class}>", errorMessage: e.message)
      exit 1
    end

    def answer(names)
      id, request = @client.next_invocation
      arguments = { event: JSON.parse(request.body), context: Context.new(id) }
      receiver = names.size == 2 ? Kernel.const_get(names[0]) : self
      @client.post("invocation/#{id}/response", receiver.send(names.last, **arguments))
    rescue StandardError => e
      @client.post("invocation/#{id}/error", errorType: "Function<#{e.class}>", errorMessage: e.message)
    end
  end
end

# One connection for each request, as the AWS client does it.
class RapidClient
  WAIT_S = 1_000_000

  def initialize(address)
    @host, @port = address.split(":")
  end

  def next_invocation
    http = Net::HTTP.new(@host, @port.to_i)
    http.read_timeout = WAIT_S
    answer = http.start { |connection| connection.get("/2018-06-01/runtime/invocation/next") }
    [answer["Lambda-Runtime-Aws-Request-Id"], answer]
  end

  def post(path, content)
    Net::HTTP.post(URI("http://#{@host}:#{@port}/2018-06-01/runtime/#{path}"), content.to_json)
  end
end
