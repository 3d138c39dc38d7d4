# frozen_string_literal: true

# Logging in, by name and nothing else, and out.
class SessionsController < ApplicationController
  def create
    name = params[:name].to_s.strip
    log_in(User.named(name)) unless name.empty?
    redirect_to root_path
  end

  # The page goes, and its socket with it. The user is offline once no other tab has beaten for half a timeout.
  def destroy
    log_out
    redirect_to root_path, status: :see_other
  end
end
