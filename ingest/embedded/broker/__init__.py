"""The embedded STOMP broker: all that a site on one box needs, and what tests use.

One process, one thread. With a directory it keeps on disk what it gave a receipt for (``journal``, which begins with how);
without one everything ends with it. Where several boxes share the work, or one may be lost with its disk, use RabbitMQ,
ActiveMQ or Artemis.

Theory of operation. ``parser`` makes frames of bytes, with the engine's own codec (``ingest.transport.stomp.codec``);
``queues`` decides who gets which message and what happens to it then; ``broker_session`` is the protocol as one
client sees it. None of these touches a socket or a clock. ``journal``, ``records`` and ``segments`` are the disk;
``client_connection`` moves the bytes of one client, ``server`` waits for all of them. ``depths`` asks a running
broker how much it holds.

What it does that a client may rely on:

* Every destination is a queue that exists while it holds a message or has a subscriber. Messages keep the
  order in which they came; competing consumers take turns.
* ``prefetch-count`` or ``activemq.prefetchSize`` on SUBSCRIBE bounds what is delivered and not yet
  acknowledged (100 unless said). With ``ack:auto`` a message counts until its last byte is in the socket.
* ``client`` acknowledges everything delivered to that subscription so far, as STOMP 1.1 and 1.2 say; on a
  STOMP 1.0 connection, whose specification knows no cumulative ACK, it acknowledges one message.
* What a consumer had when its connection ended, and what it NACKs, goes back to its old place in the queue
  with ``redelivered:true``. UNSUBSCRIBE only ends new deliveries: what was delivered may still be
  acknowledged, and goes back when the connection ends.
* A RECEIPT says that the frame, and all before it on that connection, is on disk where there is one; after a kill what was
  delivered and not acknowledged comes again with ``redelivered:true``. Over the disk limit, or when the disk is full, a SEND
  is an ERROR; over the memory limit its sender waits.
* Acknowledging what one does not have is an ERROR, and so are transactions, which it does not support.
* SEND to ``/admin/depths`` with a ``reply-to`` header puts one message on that destination: a JSON object
  that tells ``ready``, ``unacknowledged``, ``consumers`` and ``bytes`` of every destination.
"""
