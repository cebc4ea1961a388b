# frozen_string_literal: true

# The smallest function in Ruby. What stands outside of the method is done once: SnapStart takes the snapshot while the
# client waits for its first event.

require "securerandom"

INIT_ID = SecureRandom.uuid
$invocations = 0

def handler(event:, context:)
  $invocations += 1
  { initId: INIT_ID, requestId: context.aws_request_id, invocations: $invocations, event: event,
    random: SecureRandom.uuid }
end
