# frozen_string_literal: true

# Gives every clone of a snapshot random state of its own. Loaded before any code of the function.
#
# The client for Ruby has no restore hooks, so a restore is *noticed*: a snapshot is taken while the client waits for its next
# event, and every sandbox has a /dev/sysgenid of its own with a number that no other has. **Whenever an event arrives and
# that number is another one, Ruby's default generator gets a new seed before the handler sees the event**: the one behind
# `rand`, `Random.rand`, `Array#shuffle` and `Array#sample`; and so does the generator behind the names of temporary files.
#
# Deliberately absent: SecureRandom, which asks the kernel; OpenSSL, which the engine reseeds in every clone; instances that a
# function made itself (`Random.new` at init), which cannot be found; hash seeds, on which tables are built; and environments
# that are not snapshotted, which are left exactly as Ruby makes them.

require "tmpdir"

module Rekindle
  # Goes before the client's own method that waits for an event.
  module RandomnessOfClones
    GENERATION_FILE = "/dev/sysgenid"

    def self.generation
      File.binread(GENERATION_FILE)
    rescue SystemCallError
      nil
    end

    def self.renew
      Random.srand
      return unless Dir::Tmpname.const_defined?(:RANDOM)

      names = Dir::Tmpname.send(:const_get, :RANDOM)
      names.send(:initialize_copy, Random.new) if names.is_a?(Random)
    end

    def next_invocation
      before = RandomnessOfClones.generation
      event = super
      RandomnessOfClones.renew if RandomnessOfClones.generation != before
      event
    end
  end
end

RapidClient.prepend(Rekindle::RandomnessOfClones)
