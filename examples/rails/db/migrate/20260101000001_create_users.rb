# frozen_string_literal: true

# Whoever has logged in once.
class CreateUsers < ActiveRecord::Migration[6.1]
  # SQLite cannot do what `up` begins with inside a transaction.
  disable_ddl_transaction!

  def up
    # Whoever reads holds up nobody who writes. Rails sees to it since 7.1; it is kept in the file.
    execute "PRAGMA journal_mode = WAL"

    create_table :users do |t|
      t.string :name, null: false, index: { unique: true }
    end
  end

  def down
    drop_table :users
  end
end
