# frozen_string_literal: true

require "active_support/concern"

class OnlineManager
  # Adds scopes for presence to an ActiveRecord model:
  #
  #   class User < ApplicationRecord
  #     include OnlineManager::Presence
  #   end
  #
  #   User.online               # by the column `online`, which OnlineConfig updates
  #   User.online_now           # by the manager, at this moment
  #   User.online.count         # one query, as for every relation
  #   room.users.online_now     # also on associations and scopes
  #
  # None of them makes a query for each record. `rails generate online_manager:install User` adds the columns and the
  # `include`.
  module Presence
    extend ActiveSupport::Concern

    COLUMN = :online
    private_constant :COLUMN

    included do
      unless defined?(::ActiveRecord::Base) && is_a?(Class) && self < ::ActiveRecord::Base
        raise TypeError, "OnlineManager::Presence must be included in an ActiveRecord model, got #{inspect}"
      end

      scope COLUMN, -> { where(Presence.column_of(klass) => true) }
    end

    # The model's class methods.
    module ClassMethods
      # @!method online
      #   A scope: the records whose column `online` is true. Every machine sees the same.
      #   @return [ActiveRecord::Relation]
      #   @raise [Error] if the table has no such column

      # A scope: the records whose primary key is the id of a user who is online. Asks the manager now and puts the ids
      # into the query; with many thousands of users the scope `online` is cheaper.
      #
      # @param namespace [String, Symbol, nil] the manager's
      # @return [ActiveRecord::Relation]
      # @raise [Error] if no manager runs in the namespace, or the model has no primary key
      # @raise [StoreError] if the manager's store cannot be read within 5 s
      def online_now(namespace = nil)
        manager = OnlineManager.current(namespace) or
          raise Error, "no manager runs#{" in the namespace #{namespace.inspect}" if namespace}: " \
                       "call OnlineManager.setup in an initializer"
        key = primary_key or raise Error, "#{name} has no primary key to look user ids up by: set `self.primary_key`"

        where(key => manager.online_users)
      end
    end

    # @private
    # @param model [Class]
    # @return [Symbol] the column `online`
    # @raise [Error] if the model's table has no such column
    def self.column_of(model)
      return COLUMN if model.has_attribute?(COLUMN)

      raise Error, "the table #{model.table_name} has no column `#{COLUMN}`: " \
                   "run `rails generate online_manager:install #{model.name}` and migrate"
    end

    # Whether the user was online when this record was loaded. Reads the column `online`, without a query.
    #
    # @return [Boolean] the column's value
    # @raise [Error] if the table has no such column
    # @raise [ActiveModel::MissingAttributeError] if the record was loaded without the column
    def online?
      self[Presence.column_of(self.class)] == true
    end
  end
end
