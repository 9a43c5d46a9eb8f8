# Sends files with Ruby's stomp gem, persistent and with receipts:
#   PORT USER PASSWORD QUEUE VERSION with-length|without-length FILE...
# VERSION 1.0 with-length is what Puppet's own queue client sends.
require 'stomp'

port, user, password, queue, version, form, *files = ARGV
headers = version == '1.0' ? {} : { 'accept-version' => version, 'host' => '/' }
host = { login: user, passcode: password, host: '127.0.0.1', port: port.to_i, ssl: false }
client = Stomp::Client.new(hosts: [host], connect_headers: headers, reliable: false)
more = form == 'without-length' ? { suppress_content_length: true } : {}
receipts = Queue.new
files.each do |file|
  client.publish(queue, File.read(file, encoding: 'UTF-8'), { persistent: true }.merge(more)) { |receipt| receipts << receipt }
end
files.each { receipts.pop }
client.close
