# frozen_string_literal: true

# Compiles catalogs in this process as a Puppet server does: one request a line of JSON on standard input, one
# answer a line on standard output. Settings come from --confdir and --vardir, code from the environments there.
#
#   {"do": "compile", "node": N, "facts": {...}, "transaction_uuid": U, "without": whether without the module}
#     -> {"catalog": {... as the agent gets it ...}, "seconds": S, "cpu_seconds": S, "publish_seconds": of these in save, "logs": [...]}
#   {"do": "deactivate", "node": N} {"do": "report", "node": N} {"do": "flush"} {"do": "counters"} {"do": "reset"}
#   {"do": "native"} -> the whole catalog that was compiled last, as Puppet serialises it
#   {"do": "munge", "node": N} -> what PuppetDB's terminus makes of the catalog that was compiled last
#   {"do": "munge_facts"} -> what PuppetDB's terminus makes of the facts that were saved last, in that very request
#   {"do": "record", "keys": [...]} -> the next compiles have a recorder of Hiera keys, with these in it
#   {"do": "break"} -> from now on nothing can be published: whatever makes a message raises

require 'json'
require 'puppet'

# The protocol has standard output for itself.
ANSWERS = $stdout.dup
$stdout.reopen($stderr)

Puppet.settings.preferred_run_mode = :server
Puppet.initialize_settings(ARGV)
# As a request to a server does: termini are looked for in the environment's modules.
Puppet.push_context({ current_environment: Puppet.lookup(:environments).get!('production') }, 'driver')
Puppet::Util::Log.level = :info

# Log lines, as [level, message].
LOGS = []
Puppet::Util::Log.newdesttype(:driver_lines) do
  match 'driver_lines'
  def handle(message)
    LOGS << [message.level.to_s, message.message.to_s]
  end
end
Puppet::Util::Log.newdestination('driver_lines')
Puppet::Resource::Catalog.indirection.terminus_class = :compiler
Puppet::Node::Facts.indirection.terminus_class = :memory # the default of this run mode would ask this machine

# What the PuppetDB terminus gets to see: the very catalog, before the agent's filter.
LAST = {}
module Keep
  def save(request)
    LAST[:catalog] = request.instance
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    super
    LAST[:publish_seconds] = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
  end
end

module KeepFacts
  def save(request)
    LAST[:facts] = Terminus.facts(request) if request.instance && LAST[:keep_facts]
    super
  end
end

# PuppetDB's own, with what it would send kept instead of sent.
module Terminus
  def self.facts(request)
    require 'puppet/indirector/facts/puppetdb'
    terminus = Puppet::Node::Facts::Puppetdb.allocate
    sent = nil
    terminus.define_singleton_method(:submit_command) do |certname, command, version, _time, &payload|
      sent = { certname: certname, command: command, version: version, payload: payload.call }
    end
    terminus.save(request)
    sent
  end
end

Recorder = Struct.new(:lookups)

class Driver
  def compile(node, facts, transaction_uuid, environment)
    given = Puppet::Node::Facts.new(node, { 'networking' => { 'fqdn' => node }, 'clientcert' => node }.merge(facts))
    # Each compile begins with the same heap: else the one that needs the last free slots pays for collecting what
    # several others left, and with two kinds in turn that is always the same one.
    GC.start
    started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    cpu_started = Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID)
    catalog = Puppet::Resource::Catalog.indirection.find(
      node, facts: given, facts_format: 'application/json', environment: Puppet.lookup(:environments).get!(environment),
            transaction_uuid: transaction_uuid
    )
    seconds = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
    cpu_seconds = Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID) - cpu_started
    { catalog: catalog.to_data_hash, seconds: seconds, cpu_seconds: cpu_seconds, publish_seconds: LAST[:publish_seconds] }
  end

  def munge
    require 'puppet/indirector/catalog/puppetdb'
    terminus = Puppet::Resource::Catalog::Puppetdb.allocate
    munged, = terminus.munge_catalog(LAST.fetch(:catalog), Time.now, transaction_uuid: nil, job_id: nil, environment: 'production')
    munged
  end

  def report(node)
    report = Puppet::Transaction::Report.new('v1', 'production', SecureRandom.uuid)
    report.instance_variable_set(:@host, node)
    status = Puppet::Resource::Status.new(Puppet::Type.type(:notify).new(name: 'x'))
    status.add_event(Puppet::Transaction::Event.new(name: 'n', property: 'message', status: 'success', message: 'm'))
    report.add_resource_status(status)
    report.finalize_report
    Puppet::Reports.report(:catalog_queue) || raise('no report processor')
    report.extend(Puppet::Reports.report(:catalog_queue))
    report.process
  end

  def handle(request)
    case request['do']
    when 'compile'
      # Without the module, in the same process and on the same heap: what storeconfigs has set, taken back.
      cache = request['without'] ? nil : (Puppet[:storeconfigs] && :store_configs) || nil
      Puppet::Resource::Catalog.indirection.cache_class = cache
      Puppet::Node::Facts.indirection.cache_class = cache
      compile(request['node'], request['facts'] || {}, request['transaction_uuid'], request['environment'] || 'production')
    when 'deactivate'
      Puppet::Node.indirection.terminus_class = :catalog_queue
      Puppet::Node.indirection.destroy(request['node'])
      Puppet::Node.indirection.terminus_class = :plain
      {}
    when 'report'
      report(request['node'])
      {}
    when 'native' then { catalog: Puppet.override({ rich_data: true }, 'driver') { LAST.fetch(:catalog).to_data_hash } }
    when 'munge' then { catalog: munge }
    when 'keep_facts' then LAST[:keep_facts] = true && {}
    when 'munge_facts' then { facts: LAST.fetch(:facts) }
    when 'record'
      Puppet.push_context({ lookup_key_recorder: Recorder.new(request['keys'].map { |key| [key, 1] }.to_h) }, 'driver')
      {}
    when 'break'
      PuppetX::CatalogQueue::Json.define_singleton_method(:generate) { |_| raise "broken by a test: \xff" }
      {}
    when 'flush'
      PuppetX::CatalogQueue::Publisher.shut_down
      {}
    when 'counters' then { counters: PuppetX::CatalogQueue::Publisher.instance.counters.to_h }
    when 'reset'
      PuppetX::CatalogQueue.reset
      PuppetX::CatalogQueue::Collector.reset if defined?(PuppetX::CatalogQueue::Collector)
      {}
    else raise ArgumentError, request['do']
    end
  end
end

driver = Driver.new
terminus = Puppet[:storeconfigs] && Puppet::Resource::Catalog.indirection.terminus(Puppet[:storeconfigs_backend].to_sym)
terminus.singleton_class.prepend(Keep) if terminus
facts_terminus = terminus && Puppet::Node::Facts.indirection.terminus(Puppet[:storeconfigs_backend].to_sym)
facts_terminus.singleton_class.prepend(KeepFacts) if facts_terminus
$stdin.each_line do |line|
  answer = begin
    driver.handle(JSON.parse(line))
  rescue StandardError, LoadError => e
    { error: "#{e.class}: #{e.message}", at: (e.backtrace || []).first(5) }
  end
  answer[:logs] = LOGS.dup
  LOGS.clear
  begin
    ANSWERS.puts(JSON.generate(answer))
  rescue JSON::GeneratorError
    ANSWERS.puts(JSON.generate(answer.merge(catalog: nil, odd: true)))
  end
  ANSWERS.flush
end
