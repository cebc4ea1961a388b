# frozen_string_literal: true

# Hands over to the unmodified AWS client.
#
# The client's own program is passed by, because it wants Bundler and a Gemfile in the function's package. The client and
# what it needs are found by their places, so that GEM_PATH and GEM_HOME are all the function's. Deliberately absent:
# everything the client does itself.

$LOAD_PATH.concat(Dir["#{__dir__}/gems/gems/*/lib"])
require "aws_lambda_ric"
require_relative "rekindle-randomness" if ENV["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"

AwsLambdaRIC::Bootstrap.new.start
