# frozen_string_literal: true

# A gem that stands in for the AWS client in tests: RubyGems is not asked in tests. Built and installed as the real one is.
Gem::Specification.new do |spec|
  spec.name = "aws_lambda_ric"
  spec.version = "0.0.1"
  spec.summary = "speaks the Runtime API for the tests"
  spec.authors = ["tests"]
  spec.license = "Apache-2.0"
  spec.homepage = "https://example.com"
  spec.files = ["lib/aws_lambda_ric.rb"]
  spec.required_ruby_version = ">= 3.0"
end
