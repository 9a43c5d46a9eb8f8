# frozen_string_literal: true

# Errors, named after what their catcher should do.

module PuppetX
  module CatalogQueue
    # The broker or the database is away, mute or half-open: keep what is to be sent, pause, try again.
    class Unreachable < StandardError; end

    # The connection was there and ended while we used it. What we sent may be the reason.
    class Closed < Unreachable; end

    # The broker answered, and what it said was no. The message may be the reason; the next one may pass.
    class Refused < StandardError; end

    # The database answered a question with an error: the question is wrong, or we may not ask it.
    class QueryFailed < StandardError; end

    # A setting has a value that nothing can be done with; the text names the setting.
    class Misconfigured < StandardError; end
  end
end
