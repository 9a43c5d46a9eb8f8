# frozen_string_literal: true

# A report as the payload of PuppetDB's 'store report', version 8: member by member what PuppetDB's report processor
# makes. Times have its milliseconds, too: a report's identity is a digest over them, and both may send the same report.

module PuppetX
  module CatalogQueue
    module Report
      VERSION = 8

      def self.wire_time(time)
        CatalogQueue.wire_time(time, 3)
      end

      # timestamp: when it came to the Puppet server, as text.
      def self.payload(report, timestamp)
        # As a stock report processor: a report without one is none that anybody could file.
        raise ArgumentError, 'the report names no environment' if report.environment.nil?

        resources = resources(report)
        {
          'certname' => report.host,
          'puppet_version' => report.puppet_version,
          'report_format' => report.report_format,
          'configuration_version' => report.configuration_version.to_s,
          'producer_timestamp' => timestamp,
          'producer' => CatalogQueue.producer,
          'start_time' => wire_time(report.time),
          'end_time' => wire_time(report.time + run_duration(report)),
          'environment' => report.environment,
          'transaction_uuid' => report.transaction_uuid,
          'catalog_uuid' => report.catalog_uuid,
          'code_id' => report.code_id,
          'job_id' => report.job_id,
          'status' => report.status,
          'noop' => report.noop.nil? ? only_noop?(resources) : report.noop,
          'noop_pending' => report.noop_pending,
          'corrective_change' => report.corrective_change,
          'cached_catalog_status' => report.cached_catalog_status,
          'logs' => report.logs.map { |log| log_line(log) },
          'metrics' => metrics(report),
          'resources' => resources
        }
      end

      # A failed report has no metrics.
      def self.run_duration(report)
        time = report.metrics['time']
        (time && time['total']) || 0
      end
      private_class_method :run_duration

      # Of unchanged resources a report tells nothing that the catalog does not.
      def self.resources(report)
        statuses = report.resource_statuses.values
        unless CatalogQueue.settings.include_unchanged_resources
          statuses = statuses.select { |status| status.skipped || !status.events.empty? }
        end
        statuses.map { |status| resource(status) }
      end
      private_class_method :resources

      # Reports of old agents do not say: something would have been done, and nothing was.
      def self.only_noop?(resources)
        events = resources.flat_map { |resource| resource['events'] }
        !events.empty? && events.all? { |event| event['status'] == 'noop' }
      end
      private_class_method :only_noop?

      def self.log_line(log)
        { 'file' => log.file, 'line' => log.line, 'level' => log.level, 'message' => log.message,
          'source' => log.source, 'tags' => log.tags.to_a, 'time' => wire_time(log.time) }
      end
      private_class_method :log_line

      def self.metrics(report)
        report.metrics.values.flat_map do |metric|
          metric.values.map { |value| { 'category' => metric.name, 'name' => value.first, 'value' => value.last } }
        end
      end
      private_class_method :metrics

      def self.resource(status)
        { 'skipped' => status.skipped, 'timestamp' => wire_time(status.time),
          'resource_type' => status.resource_type, 'resource_title' => status.title.to_s, 'file' => status.file,
          'line' => status.line, 'containment_path' => status.containment_path,
          'corrective_change' => status.corrective_change, 'events' => status.events.map { |event| event_of(event) } }
      end
      private_class_method :resource

      def self.event_of(event)
        { 'status' => event.status, 'timestamp' => wire_time(event.time), 'name' => event.name,
          'property' => event.property, 'new_value' => event.desired_value.to_s,
          'old_value' => event.previous_value.to_s, 'corrective_change' => event.corrective_change,
          'message' => event.message }
      end
      private_class_method :event_of
    end
  end
end
