# frozen_string_literal: true

# Users who have logged in at least once.
class CreateUsers < ActiveRecord::Migration[6.1]
  # SQLite cannot change the journal mode inside a transaction.
  disable_ddl_transaction!

  def up
    # A write-ahead log: readers do not block writers. Rails sets it since 7.1. The setting is stored in the file.
    execute "PRAGMA journal_mode = WAL"

    create_table :users do |t|
      t.string :name, null: false, index: { unique: true }
    end
  end

  def down
    drop_table :users
  end
end
