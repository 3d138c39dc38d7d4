# frozen_string_literal: true

# Shows who is online.
class UsersController < ApplicationController
  before_action { @users = User.order(:name) }

  # The page.
  def index; end

  # The part of the page that is updated.
  def list
    render partial: "list", locals: { users: @users }
  end

  # The same as JSON: according to the database, and according to this process' manager.
  def online
    render json: { online: names(User.online), online_now: names(User.online_now) }
  end

  private

  def names(users) = users.order(:name).pluck(:name)
end
