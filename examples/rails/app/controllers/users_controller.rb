# frozen_string_literal: true

# Who is online.
class UsersController < ApplicationController
  before_action { @users = User.order(:name) }

  # The page.
  def index; end

  # The part of the page that changes.
  def list
    render partial: "list", locals: { users: @users }
  end

  # The same for programs: what the database says, and what the manager of this process knows.
  def online
    render json: { online: names(User.online), online_now: names(User.online_now) }
  end

  private

  def names(users) = users.order(:name).pluck(:name)
end
